// Depthwise convolution, and BatchNorm with ReLU6, with their gradients, as custom operators of MindSpore
// (https://www.mindspore.cn/tutorials/en/master/custom_program/operation/op_custom_aot.html).
// The batch is the innermost axis and a multiple of 16, so that every loop runs over whole vectors.

#include <cmath>
#include <cstdint>
#include <cstring>

namespace {
constexpr int kLanes = 16;
typedef float Vector __attribute__((vector_size(4 * kLanes)));
typedef int32_t Mask __attribute__((vector_size(4 * kLanes)));

inline Vector Load(const float* at) { Vector v; std::memcpy(&v, at, sizeof v); return v; }
inline void Store(float* at, Vector v) { std::memcpy(at, &v, sizeof v); }

// The gradient behind a ceiling `top` (0: none): nothing comes through where y lies at 0 or at the ceiling.
inline Vector Through(Vector dy, Vector y, float top) {
  return top > 0 ? (Vector)((Mask)dy & (y > 0) & (y < top)) : dy;
}

// The taps 0..2 of a kernel row that lie inside a picture of `size` pixels, seen from output `o`.
inline int First(int64_t o, int64_t stride) { return o * stride > 0 ? 0 : 1; }
inline int Last(int64_t o, int64_t stride, int64_t size) { return o * stride + 1 < size ? 2 : 1; }
}  // namespace

extern "C" {

// x (C, H, H, B), w (C, 3, 3) -> y (C, O, O, B)
int Depthwise(int, void** p, int*, int64_t** shapes, const char**, void*, void*) {
  const float* all_x = static_cast<float*>(p[0]);
  const float* all_w = static_cast<float*>(p[1]);
  float* all_y = static_cast<float*>(p[2]);
  const int64_t C = shapes[0][0], H = shapes[0][1], B = shapes[0][3], O = shapes[2][1], S = H / O;
#pragma omp parallel for
  for (int64_t c = 0; c < C; ++c) {
    const float* x = all_x + c * H * H * B;
    const float* w = all_w + c * 9;
    float* y = all_y + c * O * O * B;
    for (int64_t i = 0; i < O; ++i)
      for (int64_t j = 0; j < O; ++j, y += B) {
        const int top = First(i, S), bottom = Last(i, S, H), left = First(j, S), right = Last(j, S, H);
        const float* at = x + ((i * S - 1) * H + j * S - 1) * B;
        for (int64_t b = 0; b < B; b += kLanes) {
          Vector sum = {};
          for (int k = top; k <= bottom; ++k)
            for (int l = left; l <= right; ++l) sum += w[3 * k + l] * Load(at + (k * H + l) * B + b);
          Store(y + b, sum);
        }
      }
  }
  return 0;
}

// dy (C, O, O, B), x (C, H, H, B), w (C, 3, 3) -> dx (C, H, H, B), dw (C, 3, 3)
int DepthwiseGrad(int, void** p, int*, int64_t** shapes, const char**, void*, void*) {
  const float* all_dy = static_cast<float*>(p[0]);
  const float* all_x = static_cast<float*>(p[1]);
  const float* all_w = static_cast<float*>(p[2]);
  float* all_dx = static_cast<float*>(p[3]);
  float* all_dw = static_cast<float*>(p[4]);
  const int64_t C = shapes[1][0], H = shapes[1][1], B = shapes[1][3], O = shapes[0][1], S = H / O;
#pragma omp parallel for
  for (int64_t c = 0; c < C; ++c) {
    const float* dy = all_dy + c * O * O * B;
    const float* x = all_x + c * H * H * B;
    const float* w = all_w + c * 9;
    float* dx = all_dx + c * H * H * B;
    float* dw = all_dw + c * 9;
    std::memset(dx, 0, H * H * B * sizeof(float));
    Vector sums[9] = {};
    for (int64_t i = 0; i < O; ++i)
      for (int64_t j = 0; j < O; ++j, dy += B) {
        const int top = First(i, S), bottom = Last(i, S, H), left = First(j, S), right = Last(j, S, H);
        const int64_t at = ((i * S - 1) * H + j * S - 1) * B;
        for (int k = top; k <= bottom; ++k)
          for (int l = left; l <= right; ++l) {
            const int64_t to = at + (k * H + l) * B;
            const float weight = w[3 * k + l];
            Vector sum = sums[3 * k + l];
            for (int64_t b = 0; b < B; b += kLanes) {
              const Vector d = Load(dy + b);
              sum += d * Load(x + to + b);
              Store(dx + to + b, Load(dx + to + b) + weight * d);
            }
            sums[3 * k + l] = sum;
          }
      }
    for (int k = 0; k < 9; ++k) {
      dw[k] = 0;
      for (int l = 0; l < kLanes; ++l) dw[k] += sums[k][l];
    }
  }
  return 0;
}

// x (C, M), gamma (C), beta (C), top (1): ceiling of the activation, 0 for none -> y (C, M), mean (C), scale (C)
int Norm(int, void** p, int*, int64_t** shapes, const char**, void*, void*) {
  const float* all_x = static_cast<float*>(p[0]);
  const float* gamma = static_cast<float*>(p[1]);
  const float* beta = static_cast<float*>(p[2]);
  const float top = *static_cast<float*>(p[3]);
  float* all_y = static_cast<float*>(p[4]);
  float* mean = static_cast<float*>(p[5]);
  float* scale = static_cast<float*>(p[6]);
  const int64_t C = shapes[1][0];
  int64_t M = 1;
  for (int i = 1; i < 4; ++i) M *= shapes[0][i];
#pragma omp parallel for
  for (int64_t c = 0; c < C; ++c) {
    const float* x = all_x + c * M;
    float* y = all_y + c * M;
    float s[kLanes] = {}, q[kLanes] = {};
    for (int64_t m = 0; m < M; m += kLanes)
      for (int l = 0; l < kLanes; ++l) s[l] += x[m + l];
    double sum = 0, square = 0;
    for (int l = 0; l < kLanes; ++l) sum += s[l];
    const float mu = sum / M;
    for (int64_t m = 0; m < M; m += kLanes)
      for (int l = 0; l < kLanes; ++l) q[l] += (x[m + l] - mu) * (x[m + l] - mu);
    for (int l = 0; l < kLanes; ++l) square += q[l];
    mean[c] = mu;
    scale[c] = 1 / std::sqrt(square / M + 1e-5);
    const float a = gamma[c] * scale[c], b = beta[c] - a * mu;
    if (top > 0)
      for (int64_t m = 0; m < M; ++m) y[m] = std::fmin(std::fmax(a * x[m] + b, 0.f), top);
    else
      for (int64_t m = 0; m < M; ++m) y[m] = a * x[m] + b;
  }
  return 0;
}

// dy, x (C, M), y (C, M), gamma (C), mean (C), scale (C), top (1) -> dx (C, M), dgamma (C), dbeta (C)
int NormGrad(int, void** p, int*, int64_t** shapes, const char**, void*, void*) {
  const float* all_dy = static_cast<float*>(p[0]);
  const float* all_x = static_cast<float*>(p[1]);
  const float* all_y = static_cast<float*>(p[2]);
  const float* gamma = static_cast<float*>(p[3]);
  const float* mean = static_cast<float*>(p[4]);
  const float* scale = static_cast<float*>(p[5]);
  const float top = *static_cast<float*>(p[6]);
  float* all_dx = static_cast<float*>(p[7]);
  float* dgamma = static_cast<float*>(p[8]);
  float* dbeta = static_cast<float*>(p[9]);
  const int64_t C = shapes[3][0];
  int64_t M = 1;
  for (int i = 1; i < 4; ++i) M *= shapes[0][i];
#pragma omp parallel for
  for (int64_t c = 0; c < C; ++c) {
    const float* dy = all_dy + c * M;
    const float* x = all_x + c * M;
    const float* y = all_y + c * M;
    float* dx = all_dx + c * M;
    Vector s = {}, q = {};
    const float mu = mean[c], r = scale[c];
    for (int64_t m = 0; m < M; m += kLanes) {
      const Vector d = Through(Load(dy + m), Load(y + m), top);
      s += d;
      q += d * (Load(x + m) - mu);
    }
    double sum = 0, dot = 0;
    for (int l = 0; l < kLanes; ++l) sum += s[l], dot += q[l];
    dot *= r;
    dbeta[c] = sum;
    dgamma[c] = dot;
    const float a = gamma[c] * r, k = sum / M, j = dot / M * r;
    for (int64_t m = 0; m < M; m += kLanes) {
      const Vector d = Through(Load(dy + m), Load(y + m), top);
      Store(dx + m, a * (d - k - (Load(x + m) - mu) * j));
    }
  }
  return 0;
}
}
