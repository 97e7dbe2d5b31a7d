// Classify JPEG pictures with the model of a bundle, without Python.
//
//     classify BUNDLE photo.jpg ... [--model mobilenetv2.ms] [--pixels FILE]
//
// Prints `path  class  confidence` a picture, and what is not sure or unlike the training pictures. --pixels also writes
// what the network sees, uint8 height x width x 3 in RGB, one picture after the other. Exit status: 0 done, 1 a picture or file cannot be read, 2 wrong arguments.
//
// A picture goes the way that `preprocessing.py` of the bundle describes: decoded (reduced by libjpeg where it is large),
// turned as EXIF says, resized with antialiasing, cropped in the middle. The arithmetic of the resize is Pillow's for
// 8 bits (src/libImaging/Resample.c): each pass sums in integers with 22 bits behind the point and rounds to a level.
// Pillow 13 goes down first where that shrinks more, which with the bilinear filter moves a pixel by a level at most.

#include <algorithm>
#include <array>
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include <jpeglib.h>  // after <cstdio>, which it needs
#include <jerror.h>

#ifdef WITH_LITE
#include "include/api/context.h"
#include "include/api/model.h"
#endif
#ifdef WITH_ORT
#include <onnxruntime_cxx_api.h>
#endif

using nlohmann::json;

struct Image {
  int width = 0, height = 0;
  std::vector<uint8_t> rgb;  // height x width x 3
};

struct Box {
  double left, upper, right, lower;  // in pixels of the picture
};

struct Decoded {
  Image image;
  int width, height;  // upright, in the file
  Box box;            // of the picture what the file shows: the last row and column may be filled in part only
};

// ---------------------------------------------------------------------------------------------------- decoding

struct JpegError {
  jpeg_error_mgr base;
  std::jmp_buf jump;
  char message[JMSG_LENGTH_MAX];
};

void on_error(j_common_ptr info) {
  auto *error = reinterpret_cast<JpegError *>(info->err);
  info->err->format_message(info, error->message);
  std::longjmp(error->jump, 1);
}

// Only a file that ends too early is not the picture: bytes too many, and the like, decoders pass over.
void on_message(j_common_ptr info, int level) {
  if (level < 0 && info->err->msg_code == JWRN_JPEG_EOF) ++info->err->num_warnings;
}

// The EXIF orientation 1..8 of an APP1 segment's bytes; 1 where it says nothing.
int orientation_of(const uint8_t *data, size_t size) {
  if (size < 14 || std::memcmp(data, "Exif\0\0", 6) != 0) return 1;
  const uint8_t *tiff = data + 6;
  const size_t length = size - 6;
  const bool little = tiff[0] == 'I';
  auto number = [&](size_t at, int bytes) {
    uint32_t value = 0;
    for (int i = 0; i < bytes && at + bytes <= length; ++i)
      value |= uint32_t(tiff[at + i]) << 8 * (little ? i : bytes - 1 - i);
    return value;
  };
  const size_t directory = number(4, 4);
  const uint32_t entries = number(directory, 2);
  for (uint32_t i = 0; i < entries; ++i) {
    const size_t at = directory + 2 + 12 * size_t(i);
    if (at + 12 > length) break;
    if (number(at, 2) == 0x0112) {
      const uint32_t value = number(at + 8, 2);
      return value >= 1 && value <= 8 ? int(value) : 1;
    }
  }
  return 1;
}

// Pixels of a JPEG, by libjpeg at 1, 1/2, 1/4 or 1/8 of the size, with at least twice `enough` on each side, and its
// orientation. Only plain types live here: libjpeg leaves it by longjmp, which runs no destructors.
bool read_jpeg(const std::vector<uint8_t> &bytes, int enough, Image &image, int &width, int &height, int &orientation,
               std::string &wrong) {
  jpeg_decompress_struct info;
  JpegError error;
  info.err = jpeg_std_error(&error.base);
  error.base.error_exit = on_error;
  error.base.emit_message = on_message;
  if (setjmp(error.jump)) {
    wrong = error.message;
    jpeg_destroy_decompress(&info);
    return false;
  }
  jpeg_create_decompress(&info);
  jpeg_mem_src(&info, bytes.data(), bytes.size());
  jpeg_save_markers(&info, JPEG_APP0 + 1, 0xFFFF);
  jpeg_read_header(&info, TRUE);
  width = info.image_width;
  height = info.image_height;
  orientation = 1;
  for (auto *marker = info.marker_list; marker && orientation == 1; marker = marker->next)
    orientation = orientation_of(marker->data, marker->data_length);
  info.out_color_space = JCS_RGB;  // libjpeg refuses CMYK here, with a message
  info.scale_num = 1;
  info.scale_denom = 1;
  for (int scale : {8, 4, 2})
    if (std::min(width, height) / (2 * enough) >= scale) {
      info.scale_denom = scale;
      break;
    }
  jpeg_start_decompress(&info);
  image.width = info.output_width;
  image.height = info.output_height;
  image.rgb.resize(size_t(image.width) * image.height * 3);
  while (info.output_scanline < info.output_height) {
    JSAMPROW row = image.rgb.data() + size_t(info.output_scanline) * image.width * 3;
    jpeg_read_scanlines(&info, &row, 1);
  }
  if (error.base.num_warnings > 0) {
    wrong = "it ends too early";
    jpeg_destroy_decompress(&info);
    return false;
  }
  jpeg_finish_decompress(&info);
  jpeg_destroy_decompress(&info);
  return true;
}

// Means of `factor` x `factor` pixels; of fewer at the right and lower edge.
Image reduced(const Image &from, int factor) {
  Image to;
  to.width = (from.width + factor - 1) / factor;
  to.height = (from.height + factor - 1) / factor;
  to.rgb.resize(size_t(to.width) * to.height * 3);
  for (int y = 0; y < to.height; ++y)
    for (int x = 0; x < to.width; ++x) {
      const int lower = std::min((y + 1) * factor, from.height), right = std::min((x + 1) * factor, from.width);
      const int count = (lower - y * factor) * (right - x * factor);
      for (int c = 0; c < 3; ++c) {
        int64_t sum = 0;
        for (int v = y * factor; v < lower; ++v)
          for (int u = x * factor; u < right; ++u) sum += from.rgb[(size_t(v) * from.width + u) * 3 + c];
        to.rgb[(size_t(y) * to.width + x) * 3 + c] = uint8_t((sum + count / 2) / count);
      }
    }
  return to;
}

// Turned and flipped as an EXIF orientation says.
Image turned(const Image &from, int orientation) {
  const bool swap = orientation > 4;
  Image to;
  to.width = swap ? from.height : from.width;
  to.height = swap ? from.width : from.height;
  to.rgb.resize(from.rgb.size());
  for (int y = 0; y < to.height; ++y)
    for (int x = 0; x < to.width; ++x) {
      int u = swap ? y : x, v = swap ? x : y;
      if (orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8) u = from.width - 1 - u;
      if (orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7) v = from.height - 1 - v;
      std::copy_n(&from.rgb[(size_t(v) * from.width + u) * 3], 3, &to.rgb[(size_t(y) * to.width + x) * 3]);
    }
  return to;
}

Decoded decode(const std::vector<uint8_t> &bytes, int enough) {
  Image image;
  int width, height, orientation;
  std::string wrong;
  if (!read_jpeg(bytes, enough, image, width, height, orientation, wrong))
    throw std::runtime_error("not a readable JPEG: " + wrong);
  const int factor = std::max(1, std::min(image.width, image.height) / (2 * enough));
  if (factor > 1) image = reduced(image, factor);
  const double scale = std::max(std::round(double(width) / image.width), std::round(double(height) / image.height));
  double right = width / scale, lower = height / scale;
  if (orientation == 1) return {std::move(image), width, height, {0, 0, right, lower}};
  Image upright = turned(image, orientation);
  if (orientation > 4) {
    std::swap(width, height);
    std::swap(right, lower);
  }
  const bool from_right = orientation == 2 || orientation == 3 || orientation == 6 || orientation == 7;
  const bool from_below = orientation == 3 || orientation == 4 || orientation == 7 || orientation == 8;
  const double left = from_right ? upright.width - right : 0, upper = from_below ? upright.height - lower : 0;
  return {std::move(upright), width, height, {left, upper, left + right, upper + lower}};
}

// ---------------------------------------------------------------------------------------------------- resizing

struct Filter {
  double support;
  std::function<double(double)> value;
};

Filter filter_of(const std::string &name) {
  if (name == "bilinear") return {1.0, [](double x) { return std::max(0.0, 1 - std::abs(x)); }};
  if (name == "bicubic")
    return {2.0, [](double x) {
              x = std::abs(x);
              if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
              return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0.0;
            }};
  throw std::runtime_error("the manifest wants an unknown interpolation: " + name);
}

// One pass: `count` lines of `size` pixels, `step` apart, become `wanted` pixels each; `line` is the distance of lines.
struct Pass {
  int first, length;             // of the pixels that one pixel is made of
  std::vector<int32_t> weights;  // with 22 bits behind the point
};

constexpr int BITS = 22;

std::vector<Pass> passes(int size, double from, double to, int wanted, const Filter &filter) {
  const double scale = (to - from) / wanted, stretch = std::max(scale, 1.0), support = filter.support * stretch;
  std::vector<Pass> found(wanted);
  for (int i = 0; i < wanted; ++i) {
    const double centre = from + (i + 0.5) * scale;
    const int first = std::max(0, int(centre - support + 0.5)), end = std::min(size, int(centre + support + 0.5));
    std::vector<double> weights(std::max(0, end - first));
    double sum = 0;
    for (size_t k = 0; k < weights.size(); ++k)
      sum += weights[k] = filter.value((double(k) + first - centre + 0.5) / stretch);
    found[i].first = first;
    found[i].length = int(weights.size());
    for (double weight : weights) {
      const double whole = weight / sum * (1 << BITS);
      found[i].weights.push_back(int32_t(whole < 0 ? whole - 0.5 : whole + 0.5));
    }
  }
  return found;
}

uint8_t level(int64_t sum) { return uint8_t(std::clamp<int64_t>(sum >> BITS, 0, 255)); }

Image resized(const Image &from, int width, int height, const Box &box, const Filter &filter) {
  Image across;
  across.width = width;
  across.height = from.height;
  if (width == from.width && box.left == 0 && box.right == width) {
    across.rgb = from.rgb;
  } else {
    across.rgb.resize(size_t(width) * from.height * 3);
    const auto columns = passes(from.width, box.left, box.right, width, filter);
    for (int y = 0; y < from.height; ++y)
      for (int x = 0; x < width; ++x)
        for (int c = 0; c < 3; ++c) {
          int64_t sum = 1 << (BITS - 1);
          for (int k = 0; k < columns[x].length; ++k)
            sum += int64_t(from.rgb[(size_t(y) * from.width + columns[x].first + k) * 3 + c]) * columns[x].weights[k];
          across.rgb[(size_t(y) * width + x) * 3 + c] = level(sum);
        }
  }
  if (height == from.height && box.upper == 0 && box.lower == height) return across;
  Image to;
  to.width = width;
  to.height = height;
  to.rgb.resize(size_t(width) * height * 3);
  const auto rows = passes(from.height, box.upper, box.lower, height, filter);
  const size_t stride = size_t(width) * 3;
  for (int y = 0; y < height; ++y)
    for (size_t i = 0; i < stride; ++i) {
      int64_t sum = 1 << (BITS - 1);
      for (int k = 0; k < rows[y].length; ++k) sum += int64_t(across.rgb[(rows[y].first + k) * stride + i]) * rows[y].weights[k];
      to.rgb[y * stride + i] = level(sum);
    }
  return to;
}

// Python's round: halves go to the even number.
int rounded(double x) { return int(std::nearbyint(x)); }

// A picture in the middle of a page of the mean colour.
std::vector<uint8_t> on_page(const Image &image, const json &spec) {
  const int height = spec["size"][0], width = spec["size"][1];
  const int left = (width - image.width + 1) / 2, top = (height - image.height + 1) / 2;  // of an odd margin, more
  std::vector<uint8_t> page(size_t(width) * height * 3);
  for (size_t i = 0; i < page.size(); ++i) page[i] = uint8_t(rounded(255 * spec["mean_unit"][i % 3].get<double>()));
  for (int y = 0; y < image.height; ++y)
    std::copy_n(&image.rgb[size_t(y) * image.width * 3], size_t(image.width) * 3,
                &page[(size_t(y + top) * width + left) * 3]);
  return page;
}

// What the network sees: uint8 height x width x 3.
std::vector<uint8_t> prepared(const std::vector<uint8_t> &bytes, const json &spec) {
  constexpr int longest_aspect = 8;  // a longer strip is cut to this first
  const int height = spec["size"][0], width = spec["size"][1];
  if (spec["mean_unit"].size() != 3) throw std::runtime_error("this program prepares pictures in colour only");
  const Filter filter = filter_of(spec.value("interpolation", "bilinear"));
  const bool exact = spec["resize"].is_array();
  const auto sides = exact ? spec["resize"].get<std::vector<int>>() : std::vector<int>{spec["resize"].get<int>()};
  const int enough = *std::max_element(sides.begin(), sides.end());
  Decoded decoded = decode(bytes, enough);
  int wide, high;
  const bool letterbox = spec.value("letterbox", false);  // all of the picture in its shape, on a page
  if (letterbox) {
    const double scale = std::min(double(width) / decoded.width, double(height) / decoded.height);
    wide = std::max(1, rounded(decoded.width * scale));
    high = std::max(1, rounded(decoded.height * scale));
  } else if (exact) {
    high = sides[0];
    wide = sides[1];
  } else {
    if (std::max(decoded.image.width, decoded.image.height) >
        longest_aspect * std::min(decoded.image.width, decoded.image.height))
      throw std::runtime_error("a strip more than 8 times as long as wide, which this program does not prepare");
    const double scale = double(enough) / std::min(decoded.width, decoded.height);
    wide = std::max(enough, rounded(decoded.width * scale));
    high = std::max(enough, rounded(decoded.height * scale));
  }
  const Image image = resized(decoded.image, wide, high, decoded.box, filter);
  if (letterbox) return on_page(image, spec);
  const int left = (wide - width) / 2, top = (high - height) / 2;
  if (left < 0 || top < 0) throw std::runtime_error("the manifest's size is larger than its resize");
  std::vector<uint8_t> seen(size_t(width) * height * 3);
  for (int y = 0; y < height; ++y)
    std::copy_n(&image.rgb[(size_t(y + top) * wide + left) * 3], size_t(width) * 3, &seen[size_t(y) * width * 3]);
  return seen;
}

// ---------------------------------------------------------------------------------------------------- running

// (pixel / 255 - mean) / std in the layout that the file wants, float32.
std::vector<float> normalised(const std::vector<uint8_t> &pixels, const json &spec, bool channels_last) {
  const size_t count = pixels.size() / 3;
  std::vector<float> tensor(pixels.size());
  for (int c = 0; c < 3; ++c) {
    const float mean = 255.0f * float(spec["mean_unit"][c].get<double>());
    const float std = 255.0f * float(spec["std_unit"][c].get<double>());
    for (size_t i = 0; i < count; ++i)
      tensor[channels_last ? i * 3 + c : c * count + i] = (float(pixels[i * 3 + c]) - mean) / std;
  }
  return tensor;
}

using Outputs = std::vector<std::vector<float>>;  // of one picture, in the order of the manifest

struct Runtime {
  virtual ~Runtime() = default;
  virtual Outputs operator()(void *input, size_t bytes) = 0;
};

// Older manifests do not say.
std::vector<std::string> outputs_of(const json &facts) {
  return facts.value("outputs", std::vector<std::string>{"probabilities"});
}

#ifdef WITH_LITE
struct Lite : Runtime {
  mindspore::Model model;

  explicit Lite(const std::string &path) {
    auto context = std::make_shared<mindspore::Context>();
    context->MutableDeviceInfo().push_back(std::make_shared<mindspore::CPUDeviceInfo>());
    if (model.Build(path, mindspore::kMindIR_Lite, context) != mindspore::kSuccess)
      throw std::runtime_error(path + ": not read by MindSpore Lite");
  }

  Outputs operator()(void *input, size_t bytes) override {
    auto inputs = model.GetInputs();
    if (inputs[0].DataSize() != bytes) throw std::runtime_error("the model takes another input than its manifest says");
    std::memcpy(inputs[0].MutableData(), input, bytes);
    std::vector<mindspore::MSTensor> outputs;
    if (model.Predict(inputs, &outputs) != mindspore::kSuccess) throw std::runtime_error("MindSpore Lite failed");
    Outputs found;
    for (const auto &output : outputs) {
      const auto *first = static_cast<const float *>(output.Data().get());
      found.emplace_back(first, first + output.ElementNum());
    }
    return found;
  }
};
#endif

#ifdef WITH_ORT
struct Onnx : Runtime {
  Ort::Env env{ORT_LOGGING_LEVEL_ERROR};
  Ort::Session session{nullptr};
  std::string name;
  std::vector<std::string> outputs;
  bool pixels;
  std::vector<int64_t> shape;

  Onnx(const std::string &path, const json &facts)
      : name(facts["input_form"]), outputs(outputs_of(facts)), pixels(name == "image") {
    Ort::SessionOptions options;
    options.AddConfigEntry("session.x64quantprecision", "1");  // int8 on processors without VNNI, see the docs
    const std::basic_string<ORTCHAR_T> place(path.begin(), path.end());
    session = Ort::Session(env, place.c_str(), options);
    shape = facts["input"]["shape"].get<std::vector<int64_t>>();
    shape[0] = 1;
  }

  Outputs operator()(void *input, size_t bytes) override {
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const auto kind = pixels ? ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    auto given = Ort::Value::CreateTensor(memory, input, bytes, shape.data(), shape.size(), kind);
    const char *in = name.c_str();
    std::vector<const char *> names;
    for (const auto &output : outputs) names.push_back(output.c_str());
    Outputs found;
    for (const auto &output : session.Run(Ort::RunOptions{}, &in, &given, 1, names.data(), names.size())) {
      const float *first = output.GetTensorData<float>();
      found.emplace_back(first, first + output.GetTensorTypeAndShapeInfo().GetElementCount());
    }
    return found;
  }
};
#endif

std::unique_ptr<Runtime> open_model(const std::string &path, const json &facts) {
  if (facts["input"]["shape"][0] != -1 && facts["input"]["shape"][0] != 1)
    throw std::runtime_error(path + ": takes several pictures at once. Export it without --batch_size.");
#ifdef WITH_LITE
  if (facts["file_format"] == "LITE") return std::make_unique<Lite>(path);
#endif
#ifdef WITH_ORT
  if (facts["file_format"] == "ONNX") return std::make_unique<Onnx>(path, facts);
#endif
  throw std::runtime_error(path + ": this program was built without the runtime for it");
}

// The file of that name; without one, the first that this program has a runtime for.
std::string chosen(const json &models, const std::string &wanted) {
  if (models.contains(wanted)) return wanted;
  std::string names;
  for (const auto &[name, facts] : models.items()) {
    names += " " + name;
#ifdef WITH_LITE
    if (wanted.empty() && facts["file_format"] == "LITE") return name;
#endif
#ifdef WITH_ORT
    if (wanted.empty() && facts["file_format"] == "ONNX") return name;
#endif
  }
  throw std::runtime_error("no such model that this program could run; the bundle has" + names);
}

std::vector<uint8_t> read_file(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot be opened");
  return {std::istreambuf_iterator<char>(file), {}};
}

// The confidence that the bundle's own scripts state: the largest probability, tempered where a temperature was fitted.
double confidence(const std::vector<float> &probabilities, const json &facts) {
  const double temperature = facts.is_null() ? 1.0 : facts["temperature"].get<double>();
  const double largest = *std::max_element(probabilities.begin(), probabilities.end());
  double sum = 0;
  for (double p : probabilities) sum += std::exp((std::log(std::max(p, 1e-38)) - std::log(largest)) / temperature);
  return 1 / sum;
}

// Is the picture unlike the training pictures? No, where the file does not tell.
bool unlike(const Outputs &found, const json &manifest, const json &facts) {
  const auto names = outputs_of(facts);
  const size_t place = std::find(names.begin(), names.end(), "novelty") - names.begin();
  return place < names.size() && found.at(place).at(0) > manifest["novelty"]["threshold"].get<double>();
}

int main(int count, char **values) {
  std::vector<std::string> arguments(values + 1, values + count), pictures;
  std::string bundle, wanted, pixels_path;
  for (size_t i = 0; i < arguments.size(); ++i) {
    if ((arguments[i] == "--model" || arguments[i] == "--pixels") && i + 1 < arguments.size()) {
      (arguments[i] == "--model" ? wanted : pixels_path) = arguments[i + 1];
      ++i;
    } else if (bundle.empty()) {
      bundle = arguments[i];
    } else {
      pictures.push_back(arguments[i]);
    }
  }
  if (pictures.empty()) {
    std::cerr << "usage: classify BUNDLE PICTURE.jpg ... [--model FILE] [--pixels FILE]\n";
    return 2;
  }
  json manifest;
  std::unique_ptr<Runtime> model;
  std::string name;
  try {
    const auto text = read_file(bundle + "/manifest.json");
    manifest = json::parse(text.begin(), text.end());
    name = chosen(manifest.at("models"), wanted);
    model = open_model(bundle + "/" + name, manifest["models"][name]);
  } catch (const std::exception &error) {
    std::cerr << "error: " << bundle << ": " << error.what() << "\n";
    return 1;
  }
  const json &facts = manifest["models"][name], &spec = manifest["image"];
  std::ofstream pixels_file;
  if (!pixels_path.empty()) pixels_file.open(pixels_path, std::ios::binary);
  int status = 0;
  for (const auto &path : pictures) {
    try {
      auto pixels = prepared(read_file(path), spec);
      if (pixels_file.is_open()) pixels_file.write(reinterpret_cast<char *>(pixels.data()), pixels.size());
      Outputs found;
      if (facts["input_form"] == "image") {
        found = (*model)(pixels.data(), pixels.size());
      } else {
        auto tensor = normalised(pixels, spec, facts["input"]["layout"] == "NHWC");
        found = (*model)(tensor.data(), tensor.size() * sizeof(float));
      }
      const auto &shares = found.at(0);
      const size_t best = std::max_element(shares.begin(), shares.end()) - shares.begin();
      const double certain = confidence(shares, manifest["confidence"]);
      const bool sure = manifest["confidence"].is_null() || certain >= manifest["confidence"]["threshold"].get<double>();
      std::printf("%s  %s  %.1f %%%s%s\n", path.c_str(), manifest["classes"][best].get<std::string>().c_str(),
                  100 * certain, sure ? "" : "  not sure",
                  unlike(found, manifest, facts) ? "  unlike the training pictures" : "");
    } catch (const std::exception &error) {
      std::cerr << "left out: " << path << ": " << error.what() << "\n";
      status = 1;
    }
  }
  return status;
}
