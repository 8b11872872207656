// Arguments and results of the addon's functions. Only binding.cc includes this.
#pragma once

#include <node_api.h>

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <string>

namespace kup {

// A refusal of Node-API is a fault of ours.
inline void expect(napi_status status) {
  if (status == napi_ok) return;
  const std::string text = "Node-API refused a call of ours: status " + std::to_string(status);
  napi_fatal_error("kup_engine", NAPI_AUTO_LENGTH, text.c_str(), text.size());
}

template <size_t Count>
class Arguments {
 public:
  Arguments(napi_env env, napi_callback_info info) : env_(env) {
    size_t count = Count;
    expect(napi_get_cb_info(env, info, &count, values_, nullptr, nullptr));
    assert(count == Count);
  }

  napi_value operator[](size_t at) const { return values_[at]; }

  double number(size_t at) const {
    double number = 0;
    expect(napi_get_value_double(env_, values_[at], &number));
    return number;
  }

  // Modulo 2^32: ids of listeners are negative in JavaScript.
  uint32_t uint32(size_t at) const {
    int32_t number = 0;
    expect(napi_get_value_int32(env_, values_[at], &number));
    return static_cast<uint32_t>(number);
  }

  bool boolean(size_t at) const {
    bool value = false;
    expect(napi_get_value_bool(env_, values_[at], &value));
    return value;
  }

  // ASCII.
  std::string text(size_t at) const {
    size_t length = 0;
    expect(napi_get_value_string_latin1(env_, values_[at], nullptr, 0, &length));
    std::string text(length, '\0');
    expect(napi_get_value_string_latin1(env_, values_[at], text.data(), length + 1, &length));
    return text;
  }

  // An ArrayBuffer of whole `Item`s.
  template <typename Item>
  Item* items(size_t at, size_t* count) const {
    void* data = nullptr;
    size_t length = 0;
    expect(napi_get_arraybuffer_info(env_, values_[at], &data, &length));
    assert(reinterpret_cast<uintptr_t>(data) % alignof(Item) == 0);
    *count = length / sizeof(Item);
    return static_cast<Item*>(data);
  }

  // A Uint8Array.
  const uint8_t* bytes(size_t at, size_t* length) const {
    void* data = nullptr;
    expect(napi_get_typedarray_info(env_, values_[at], nullptr, length, &data, nullptr, nullptr));
    return static_cast<const uint8_t*>(data);
  }

  void* external(size_t at) const {
    void* data = nullptr;
    expect(napi_get_value_external(env_, values_[at], &data));
    return data;
  }

 private:
  const napi_env env_;
  napi_value values_[Count];
};

inline napi_value undefined(napi_env env) {
  napi_value result = nullptr;
  expect(napi_get_undefined(env, &result));
  return result;
}

inline napi_value numberOf(napi_env env, double number) {
  napi_value result = nullptr;
  expect(napi_create_double(env, number, &result));
  return result;
}

inline napi_value booleanOf(napi_env env, bool value) {
  napi_value result = nullptr;
  expect(napi_get_boolean(env, value, &result));
  return result;
}

// A Float64Array with room for so many.
inline napi_value numbers(napi_env env, size_t count, double** items) {
  void* data = nullptr;
  napi_value buffer = nullptr;
  napi_value result = nullptr;
  expect(napi_create_arraybuffer(env, count * sizeof(double), &data, &buffer));
  expect(napi_create_typedarray(env, napi_float64_array, count, buffer, 0, &result));
  *items = static_cast<double*>(data);
  return result;
}

inline double property(napi_env env, napi_value object, const char* name) {
  napi_value value = nullptr;
  double number = 0;
  expect(napi_get_named_property(env, object, name, &value));
  expect(napi_get_value_double(env, value, &number));
  return number;
}

}  // namespace kup
