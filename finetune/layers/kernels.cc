// The layers of a training on large maps, forward and backward, as custom operators of MindSpore
// (https://www.mindspore.cn/tutorials/en/master/custom_program/operation/op_custom_aot.html).
// The batch is the innermost axis, so that loops run over whole vectors: kLanes pictures at a time, the rest one by one.

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace {
constexpr int kLanes = 8;
typedef float Vector __attribute__((vector_size(4 * kLanes)));
typedef int32_t Mask __attribute__((vector_size(4 * kLanes)));

template <typename V> inline V Load(const float* at) { V v; std::memcpy(&v, at, sizeof v); return v; }
template <typename V> inline void Store(float* at, V v) { std::memcpy(at, &v, sizeof v); }

// At most `top`, and not below 0; as it is where top is 0. What is no number stays none, so that a loss tells it.
template <typename V> inline V Clip(V v, float top) {
  if (top <= 0) return v;
  v = v < 0 ? V{} : v;
  return v > top ? V{} + top : v;
}

// The gradient behind Clip: nothing comes through where y lies at 0 or at the top.
inline float Through(float dy, float y, float top) { return top <= 0 || (y > 0 && y < top) ? dy : 0.f; }
inline Vector Through(Vector dy, Vector y, float top) { return top > 0 ? (Vector)((Mask)dy & (y > 0) & (y < top)) : dy; }

inline float Sum(float v) { return v; }
inline float Sum(Vector v) {
  float sum = 0;
  for (int l = 0; l < kLanes; ++l) sum += v[l];
  return sum;
}

// What a 3x3 kernel meets along one axis: output o reads the taps first..last of the pixels from start on.
struct Axis {
  int64_t size, out, stride, before;
  int64_t start(int64_t o) const { return o * stride - before; }
  int first(int64_t o) const { return static_cast<int>(std::max<int64_t>(0, -start(o))); }
  int last(int64_t o) const { return static_cast<int>(std::min<int64_t>(2, size - 1 - start(o))); }
};

struct Map {
  Axis rows, columns;
  int64_t pictures;
  // `how`: stride, and the rows and columns of zeros in front of the picture.
  Map(const int64_t* x, const int64_t* y, const float* how)
      : rows{x[1], y[1], static_cast<int64_t>(how[0]), static_cast<int64_t>(how[1])},
        columns{x[2], y[2], static_cast<int64_t>(how[0]), static_cast<int64_t>(how[2])},
        pictures(x[3]) {}
  int64_t values() const { return rows.size * columns.size * pictures; }
  int64_t values_out() const { return rows.out * columns.out * pictures; }
};

constexpr float kTop = 6;  // ReLU6 stands behind every depthwise convolution

// Row i of one channel; of the pictures from b on, as many as V has lanes.
template <typename V>
void Forward(const Map& map, const float* x, const float* w, float bias, float* y, int64_t i, int64_t b) {
  for (int64_t j = 0; j < map.columns.out; ++j) {
    const float* at = x + (map.rows.start(i) * map.columns.size + map.columns.start(j)) * map.pictures + b;
    V sum = V{} + bias;
    for (int k = map.rows.first(i); k <= map.rows.last(i); ++k)
      for (int l = map.columns.first(j); l <= map.columns.last(j); ++l)
        sum += w[3 * k + l] * Load<V>(at + (k * map.columns.size + l) * map.pictures);
    Store(y + (i * map.columns.out + j) * map.pictures + b, Clip(sum, kTop));
  }
}

// The same row and pictures backward; sums (10) of the weights and the bias grow.
template <typename V>
void Backward(const Map& map, const float* dy, const float* y, const float* x, const float* w, float* dx, double* sums,
              int64_t i, int64_t b) {
  V taps[9] = {}, through = {};
  for (int64_t j = 0; j < map.columns.out; ++j) {
    const int64_t out = (i * map.columns.out + j) * map.pictures + b;
    const int64_t in = (map.rows.start(i) * map.columns.size + map.columns.start(j)) * map.pictures + b;
    const V d = Through(Load<V>(dy + out), Load<V>(y + out), kTop);
    through += d;
    for (int k = map.rows.first(i); k <= map.rows.last(i); ++k)
      for (int l = map.columns.first(j); l <= map.columns.last(j); ++l) {
        const int64_t at = in + (k * map.columns.size + l) * map.pictures;
        taps[3 * k + l] += d * Load<V>(x + at);
        Store(dx + at, Load<V>(dx + at) + w[3 * k + l] * d);
      }
  }
  for (int k = 0; k < 9; ++k) sums[k] += Sum(taps[k]);
  sums[9] += Sum(through);
}
}  // namespace

extern "C" {

// x (C, H, W, B), w (C, 9), bias (C), how (3) -> y (C, H', W', B), clipped
int Depthwise(int, void** p, int*, int64_t** shapes, const char**, void*, void*) {
  const float *x = static_cast<float*>(p[0]), *w = static_cast<float*>(p[1]), *bias = static_cast<float*>(p[2]);
  float* y = static_cast<float*>(p[4]);
  const Map map(shapes[0], shapes[4], static_cast<float*>(p[3]));
#pragma omp parallel for
  for (int64_t c = 0; c < shapes[0][0]; ++c) {
    const float* x_c = x + c * map.values();
    float* y_c = y + c * map.values_out();
    for (int64_t i = 0; i < map.rows.out; ++i) {
      int64_t b = 0;
      for (; b + kLanes <= map.pictures; b += kLanes) Forward<Vector>(map, x_c, w + 9 * c, bias[c], y_c, i, b);
      for (; b < map.pictures; ++b) Forward<float>(map, x_c, w + 9 * c, bias[c], y_c, i, b);
    }
  }
  return 0;
}

// dy, y (C, H', W', B), x (C, H, W, B), w (C, 9), how (3) -> dx (C, H, W, B), dw (C, 9), dbias (C)
int DepthwiseGrad(int, void** p, int*, int64_t** shapes, const char**, void*, void*) {
  const float *dy = static_cast<float*>(p[0]), *y = static_cast<float*>(p[1]), *x = static_cast<float*>(p[2]);
  const float* w = static_cast<float*>(p[3]);
  float *dx = static_cast<float*>(p[5]), *dw = static_cast<float*>(p[6]), *dbias = static_cast<float*>(p[7]);
  const Map map(shapes[2], shapes[0], static_cast<float*>(p[4]));
#pragma omp parallel for
  for (int64_t c = 0; c < shapes[2][0]; ++c) {
    const float *dy_c = dy + c * map.values_out(), *y_c = y + c * map.values_out(), *x_c = x + c * map.values();
    float* dx_c = dx + c * map.values();
    std::memset(dx_c, 0, map.values() * sizeof(float));
    double sums[10] = {};
    for (int64_t i = 0; i < map.rows.out; ++i) {
      int64_t b = 0;
      for (; b + kLanes <= map.pictures; b += kLanes)
        Backward<Vector>(map, dy_c, y_c, x_c, w + 9 * c, dx_c, sums, i, b);
      for (; b < map.pictures; ++b) Backward<float>(map, dy_c, y_c, x_c, w + 9 * c, dx_c, sums, i, b);
    }
    for (int k = 0; k < 9; ++k) dw[9 * c + k] = static_cast<float>(sums[k]);
    dbias[c] = static_cast<float>(sums[9]);
  }
  return 0;
}

// x (C, H, W, B), how (3) -> y (C, 9, H', W', B): what each tap of a 3x3 kernel meets
int Taps(int, void** p, int*, int64_t** shapes, const char**, void*, void*) {
  const float* x = static_cast<float*>(p[0]);
  float* y = static_cast<float*>(p[2]);
  const Map map(shapes[0], shapes[2] + 1, static_cast<float*>(p[1]));
#pragma omp parallel for collapse(2)
  for (int64_t c = 0; c < shapes[0][0]; ++c)
    for (int tap = 0; tap < 9; ++tap) {
      const int k = tap / 3, l = tap % 3;
      float* to = y + (9 * c + tap) * map.values_out();
      for (int64_t i = 0; i < map.rows.out; ++i)
        for (int64_t j = 0; j < map.columns.out; ++j, to += map.pictures) {
          const int64_t row = map.rows.start(i) + k, column = map.columns.start(j) + l;
          const bool inside = row >= 0 && row < map.rows.size && column >= 0 && column < map.columns.size;
          const float* from = x + ((c * map.rows.size + row) * map.columns.size + column) * map.pictures;
          if (inside)
            std::memcpy(to, from, map.pictures * sizeof(float));
          else
            std::memset(to, 0, map.pictures * sizeof(float));
        }
    }
  return 0;
}

// x (C, M), bias (C), top (1) -> y (C, M): x + bias, clipped
int Bias(int, void** p, int*, int64_t** shapes, const char**, void*, void*) {
  const float *x = static_cast<float*>(p[0]), *bias = static_cast<float*>(p[1]);
  const float top = *static_cast<float*>(p[2]);
  float* y = static_cast<float*>(p[3]);
  const int64_t M = shapes[0][1];
#pragma omp parallel for
  for (int64_t c = 0; c < shapes[0][0]; ++c) {
    const float* x_c = x + c * M;
    float* y_c = y + c * M;
    int64_t m = 0;
    for (; m + kLanes <= M; m += kLanes) Store(y_c + m, Clip(Load<Vector>(x_c + m) + bias[c], top));
    for (; m < M; ++m) y_c[m] = Clip(x_c[m] + bias[c], top);
  }
  return 0;
}

// dy, y (C, M), top (1) -> dx (C, M), dbias (C)
int BiasGrad(int, void** p, int*, int64_t** shapes, const char**, void*, void*) {
  const float *dy = static_cast<float*>(p[0]), *y = static_cast<float*>(p[1]);
  const float top = *static_cast<float*>(p[2]);
  float *dx = static_cast<float*>(p[3]), *dbias = static_cast<float*>(p[4]);
  const int64_t M = shapes[0][1];
#pragma omp parallel for
  for (int64_t c = 0; c < shapes[0][0]; ++c) {
    const float *dy_c = dy + c * M, *y_c = y + c * M;
    float* dx_c = dx + c * M;
    Vector through = {};
    float rest = 0;
    int64_t m = 0;
    for (; m + kLanes <= M; m += kLanes) {
      const Vector d = Through(Load<Vector>(dy_c + m), Load<Vector>(y_c + m), top);
      through += d;
      Store(dx_c + m, d);
    }
    for (; m < M; ++m) rest += dx_c[m] = Through(dy_c[m], y_c[m], top);
    dbias[c] = Sum(through) + rest;
  }
  return 0;
}

// MindSpore tells operators apart by the names of their functions: those of stride 2 have another shape behind them.
int DepthwiseStride2(int n, void** p, int* d, int64_t** shapes, const char** types, void* stream, void* extra) {
  return Depthwise(n, p, d, shapes, types, stream, extra);
}

int TapsStride2(int n, void** p, int* d, int64_t** shapes, const char** types, void* stream, void* extra) {
  return Taps(n, p, d, shapes, types, stream, extra);
}
}
