// SPDX-License-Identifier: LGPL-2.1-or-later
#include "cuda_trace.h"

#include <cupti.h>
#include <cxxabi.h>
#include <dlfcn.h>

#include <cstdlib>
#include <map>
#include <unordered_map>

#include "error.h"

namespace wan::bench {

namespace {

/// CUPTI's functions, looked up in the library that LibTorch has loaded.
struct Cupti {
  static void *symbol(const char *name) {
    static void *const library = dlopen("libcupti.so.13", RTLD_NOW);
    void *const found = library ? dlsym(library, name) : nullptr;
    if (!found) throw Error(WAN_DEVICE, std::string("CUPTI cannot be used: ") + dlerror());
    return found;
  }

#define WAN_CUPTI(name) \
  decltype(&::cupti##name) name = reinterpret_cast<decltype(name)>(symbol("cupti" #name))
  WAN_CUPTI(ActivityRegisterCallbacks);
  WAN_CUPTI(ActivityEnable);
  WAN_CUPTI(ActivityDisable);
  WAN_CUPTI(ActivityFlushAll);
  WAN_CUPTI(ActivityGetNextRecord);
  WAN_CUPTI(ActivityPushExternalCorrelationId);
  WAN_CUPTI(ActivityPopExternalCorrelationId);
  WAN_CUPTI(GetTimestamp);
  WAN_CUPTI(GetResultString);
#undef WAN_CUPTI

  void check(CUptiResult result) const {
    if (result == CUPTI_SUCCESS) return;
    const char *text = "";
    GetResultString(result, &text);
    throw Error(WAN_DEVICE, std::string("CUPTI cannot be used: ") + text);
  }
};

const Cupti &cupti() {
  static const Cupti functions;
  return functions;
}

std::string demangle(const char *name) {
  int status = 0;
  char *const readable = abi::__cxa_demangle(name, nullptr, nullptr, &status);
  std::string result = readable ? readable : name;
  std::free(readable);
  return result;
}

const char *copy_name(uint8_t kind) {
  switch (kind) {
    case CUPTI_ACTIVITY_MEMCPY_KIND_HTOD:
      return "copy to the device";
    case CUPTI_ACTIVITY_MEMCPY_KIND_DTOH:
      return "copy to the host";
    default:
      return "copy on the device";
  }
}

/// What CUPTI's records say, before they are brought together.
struct Records {
  struct Work {
    Lane lane;
    std::string name;
    uint32_t stream, correlation;
    uint64_t start, end;
  };
  std::vector<Work> work;
  std::unordered_map<uint32_t, int64_t> chunk_of;  // by correlation

  void add(const CUpti_Activity *record) {
    switch (record->kind) {
      case CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL: {
        const auto *kernel = reinterpret_cast<const CUpti_ActivityKernel10 *>(record);
        add(Lane::kKernel, kernel->name, *kernel);
        break;
      }
      case CUPTI_ACTIVITY_KIND_MEMCPY: {
        const auto *copy = reinterpret_cast<const CUpti_ActivityMemcpy6 *>(record);
        add(Lane::kCopy, copy_name(copy->copyKind), *copy);
        break;
      }
      case CUPTI_ACTIVITY_KIND_MEMSET:
        add(Lane::kCopy, "fill", *reinterpret_cast<const CUpti_ActivityMemset4 *>(record));
        break;
      case CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION: {
        const auto *link = reinterpret_cast<const CUpti_ActivityExternalCorrelation *>(record);
        chunk_of[link->correlationId] = static_cast<int64_t>(link->externalId);
        break;
      }
      default:  // the calls of the runtime, which are recorded for the sake of their correlation only
        break;
    }
  }

 private:
  template <typename Record>
  void add(Lane lane, const char *name, const Record &record) {
    work.push_back({lane, name, record.streamId, record.correlationId, record.start, record.end});
  }
};

// CUPTI's callbacks take no user data.
std::mutex records_mutex;
Records records;

void request_buffer(uint8_t **buffer, size_t *size, size_t *most_records) {
  constexpr size_t kAlignment = 8, kSize = size_t{8} << 20;
  *buffer = static_cast<uint8_t *>(std::aligned_alloc(kAlignment, kSize));
  *size = *buffer ? kSize : 0;
  *most_records = 0;  // as many as fit
}

void take_buffer(CUcontext, uint32_t, uint8_t *buffer, size_t, size_t used) {
  const std::lock_guard lock(records_mutex);
  for (CUpti_Activity *record = nullptr;
       cupti().ActivityGetNextRecord(buffer, used, &record) == CUPTI_SUCCESS;)
    records.add(record);
  std::free(buffer);
}

class CudaTrace : public GpuTrace {
 public:
  explicit CudaTrace(bool chunks) {
    if (chunks)
      for (const CUpti_ActivityKind kind : {CUPTI_ACTIVITY_KIND_RUNTIME, CUPTI_ACTIVITY_KIND_DRIVER,
                                            CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION})
        kinds_.push_back(kind);
    cupti().check(cupti().ActivityRegisterCallbacks(request_buffer, take_buffer));
    records = {};
    for (const CUpti_ActivityKind kind : kinds_) cupti().check(cupti().ActivityEnable(kind));
  }
  ~CudaTrace() override { stop(); }

  int64_t now() const override {
    uint64_t time = 0;
    cupti().check(cupti().GetTimestamp(&time));
    return static_cast<int64_t>(time);
  }
  void enter_chunk(int64_t chunk) override {
    cupti().ActivityPushExternalCorrelationId(kCorrelation, static_cast<uint64_t>(chunk));
  }
  void leave_chunk() override {
    uint64_t chunk = 0;
    cupti().ActivityPopExternalCorrelationId(kCorrelation, &chunk);
  }

  Timeline finish() override {
    stop();
    const std::lock_guard lock(records_mutex);
    std::map<std::string, std::string> names;
    Timeline timeline;
    for (const Records::Work &work : records.work) {
      std::string &name = names[work.name];
      if (name.empty()) name = demangle(work.name.c_str());
      const auto chunk = records.chunk_of.find(work.correlation);
      timeline.push_back({work.lane, name, work.stream, chunk == records.chunk_of.end() ? -1 : chunk->second,
                          static_cast<int64_t>(work.start), static_cast<int64_t>(work.end)});
    }
    return timeline;
  }

 private:
  static constexpr auto kCorrelation = CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM0;

  void stop() {
    if (kinds_.empty()) return;
    for (const CUpti_ActivityKind kind : kinds_) cupti().ActivityDisable(kind);
    kinds_.clear();
    cupti().ActivityFlushAll(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
  }

  std::vector<CUpti_ActivityKind> kinds_ = {CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL, CUPTI_ACTIVITY_KIND_MEMCPY,
                                            CUPTI_ACTIVITY_KIND_MEMSET};
};

}  // namespace

std::unique_ptr<GpuTrace> make_cuda_trace(bool chunks) {
  return std::make_unique<CudaTrace>(chunks);
}

}  // namespace wan::bench
