// SPDX-License-Identifier: LGPL-2.1-or-later
//
// An element and a gst-wan-worker, which is the real program in a process of its own, over loopback: they
// make what one process makes, and whatever becomes of the one is an error of the other and no more.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <sys/socket.h>

#include <array>
#include <atomic>
#include <csignal>
#include <fstream>
#include <optional>
#include <thread>

#include "checkpoint/fingerprint.h"
#include "common/conditioned_models.h"
#include "common/dice.h"
#include "common/engine.h"
#include "common/temporary_directory.h"
#include "common/tiny_model.h"
#include "remote/channel.h"

namespace wan::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

/// The program, which ends with the test.
class WorkerProcess {
 public:
  explicit WorkerProcess(const std::string &model = tiny_model(), const std::string &listen = "127.0.0.1:0",
                         const std::string &device = test_device_name()) {
    const std::unique_ptr<GSubprocessLauncher, Unref> launcher(
        g_subprocess_launcher_new(G_SUBPROCESS_FLAGS_STDOUT_PIPE));
    const char *const arguments[] = {WAN_WORKER,     "--model",  model.c_str(),  "--listen",
                                     listen.c_str(), "--device", device.c_str(), nullptr};
    process_.reset(g_subprocess_launcher_spawnv(launcher.get(), arguments, nullptr));
    output_.reset(g_data_input_stream_new(g_subprocess_get_stdout_pipe(process_.get())));
    const std::string listening = "Listening on ", first = line().value_or("");
    EXPECT_THAT(first, testing::StartsWith(listening));
    address_ = first.substr(std::min(first.size(), listening.size()));
  }
  ~WorkerProcess() { end(); }

  const std::string &address() const { return address_; }
  void signal(int number) const { g_subprocess_send_signal(process_.get(), number); }
  void end() const {
    signal(SIGCONT);
    g_subprocess_force_exit(process_.get());
    g_subprocess_wait(process_.get(), nullptr, nullptr);
  }
  /// The next line that it prints; nothing where it has ended.
  std::optional<std::string> line() const {
    const std::unique_ptr<char, void (*)(gpointer)> line(
        g_data_input_stream_read_line(output_.get(), nullptr, nullptr, nullptr), g_free);
    return line ? std::optional<std::string>(line.get()) : std::nullopt;
  }

 private:
  std::unique_ptr<GSubprocess, Unref> process_;
  std::unique_ptr<GDataInputStream, Unref> output_;
  std::string address_;
};

/// GST_WAN_SECRET of this process, and of the workers that it starts.
class Secret {
 public:
  explicit Secret(const char *value) { g_setenv("GST_WAN_SECRET", value, TRUE); }
  ~Secret() { g_unsetenv("GST_WAN_SECRET"); }
};

Model load(const std::string &worker, const std::string &directory = tiny_model(),
           const std::vector<WanLora> &loras = {}) {
  const std::string device = test_device_name();
  WanLoadOptions options{};
  options.model_dir = directory.c_str();
  options.device = device.c_str();
  options.worker = worker.empty() ? nullptr : worker.c_str();
  options.loras = loras.data();
  options.num_loras = loras.size();
  return load_model(options);
}

template <typename Function>
Failure failure_of(Function function) {
  try {
    function();
  } catch (const Failure &failure) {
    return failure;
  }
  ADD_FAILURE() << "nothing failed";
  return {WAN_OK, ""};
}

WanGenerateOptions clip() {
  WanGenerateOptions options = tiny_options();
  options.num_frames = 5;
  options.steps = 4;  // two for each expert
  options.layout = packed_layout(WAN_PIXEL_RGB, 48, 32);
  return options;
}

WanMemory memory_of(const Model &model) {
  WanMemory memory;
  api().memory(model.get(), &memory);
  return memory;
}

TEST(Worker, MakesWithAnElementTheClipThatOneProcessMakes) {
  const WorkerProcess worker;
  const Model alone = load(""), both = load(worker.address());
  EXPECT_THAT(memory_of(both).device, HasSubstr("worker " + worker.address()));
  WanGenerateOptions options = clip();
  for (const WanCache cache : {WAN_CACHE_NONE, WAN_CACHE_FIRST_BLOCK}) {
    options.cache = cache;
    options.cache_threshold = 0.3;
    EXPECT_TRUE(at::equal(generate_clip(both, options), generate_clip(alone, options))) << cache;
  }
  EXPECT_EQ(memory_of(both).guidance_devices, 2);
  options.guidance_scale_2 = 1;  // the second expert needs none
  EXPECT_TRUE(at::equal(generate_clip(both, options), generate_clip(alone, options)));
}

TEST(Worker, IsNotAskedWhereThereIsNoGuidance) {
  const WorkerProcess worker;
  const Model model = load(worker.address());
  worker.end();
  WanGenerateOptions options = clip();
  options.guidance_scale = options.guidance_scale_2 = 1;
  EXPECT_EQ(generate_clip(model, options).size(0), options.num_frames);
  EXPECT_EQ(memory_of(model).guidance_devices, 1);
}

TEST(Worker, SharesItsOwnPartAmongItsDevices) {
  if (!test_device().is_cpu()) GTEST_SKIP() << "is for the CPU";
  const c10::InferenceMode inference;
  const WorkerProcess worker(tiny_model(), "127.0.0.1:0", "cpu,cpu,cpu");
  const at::Tensor alone = generate_clip(load(""), clip()).to(at::kInt),
                   both = generate_clip(load(worker.address()), clip()).to(at::kInt);
  EXPECT_LE((alone - both).abs().max().item<int>(), 1) << "8 bits of what differs by rounding";
}

class WorkerWithPictures : public testing::TestWithParam<const char *> {};

TEST_P(WorkerWithPictures, SeesThemAsTheElementDoes) {
  const TemporaryDirectory directory;
  const ConditionedModel conditioned(GetParam(), directory.path() / "model");
  const CheckpointConfig config = CheckpointConfig::read(conditioned.directory());
  WanGenerateOptions options = clip();
  options.layout = packed_layout(WAN_PIXEL_RGB, 96, 32);
  options.steps = 2;
  options.flow_shift = config.scheduler.flow_shift;
  options.guidance_scale = options.guidance_scale_2 = 4;
  options.pictures[WAN_PICTURE_FIRST] = true;
  options.pictures[WAN_PICTURE_LAST] = config.variant->last_picture == WAN_PICTURE_REQUIRED;
  const at::Tensor picture = at::randint(256, {32, 96, 3}, at::kByte);
  Listener listener;
  listener.picture = [&](WanPictureKind) { return picture; };
  const std::string model = conditioned.directory().string();
  const WorkerProcess worker(model);
  EXPECT_TRUE(at::equal(generate_clip(load(worker.address(), model), options, listener),
                        generate_clip(load("", model), options, listener)));
}

INSTANTIATE_TEST_SUITE_P(Models, WorkerWithPictures,
                         testing::Values("i2v-a14b", "ti2v-5b", "i2v-21", "flf2v-21"));

/// What happens to the worker when a clip's second step is done.
Failure fail_midway(const Model &model, const std::function<void()> &happens) {
  Listener listener;
  listener.progress = [&](const WanProgress &progress) {
    if (progress.stage == WAN_STAGE_DENOISE && progress.step == 2) happens();
  };
  return failure_of([&] { generate(model, clip(), listener); });
}

TEST(Worker, ThatIsKilledIsAnErrorThatNamesItAndAnotherTakesItsPlace) {
  const WorkerProcess worker;
  const Model model = load(worker.address());
  const at::Tensor expected = generate_clip(model, clip());
  const Failure failure = fail_midway(model, [&] { worker.end(); });
  EXPECT_EQ(failure.status, WAN_LOST);
  EXPECT_THAT(failure.message, HasSubstr("The worker " + worker.address() + " was lost"));
  const Failure next = failure_of([&] { generate(model, clip(), {}); });
  EXPECT_EQ(next.status, WAN_LOST);
  EXPECT_THAT(next.message, AllOf(HasSubstr("No worker answers at " + worker.address()),
                                  HasSubstr("start gst-wan-worker there")));
  const WorkerProcess another(tiny_model(), worker.address());
  EXPECT_TRUE(at::equal(generate_clip(model, clip()), expected));
}

TEST(Worker, ThatWasReplacedWhileNothingWasAskedIsNoError) {
  auto worker = std::make_unique<WorkerProcess>();
  const std::string address = worker->address();
  const Model model = load(address);
  const at::Tensor expected = generate_clip(model, clip());
  worker.reset();
  const WorkerProcess another(tiny_model(), address);
  EXPECT_TRUE(at::equal(generate_clip(model, clip()), expected));
}

TEST(Worker, ThatStallsIsAnErrorThatNamesIt) {
  const WorkerProcess worker;
  const Model model = load(worker.address());
  const Failure failure = fail_midway(model, [&] { worker.signal(SIGSTOP); });
  EXPECT_EQ(failure.status, WAN_LOST);
  EXPECT_THAT(failure.message, HasSubstr("The worker " + worker.address() +
                                         " was lost: nothing was heard of it for 10 seconds"));
}

TEST(Worker, ACancelAtAnyMomentLeavesBothUsable) {
  const WorkerProcess worker;
  const Model model = load(worker.address());
  const at::Tensor expected = generate_clip(model, clip());
  Dice dice(5);
  cancel_clips(model, clip(), dice, 10, 60);
  EXPECT_TRUE(at::equal(generate_clip(model, clip()), expected));
}

TEST(Worker, OutlivesItsElementsAndKeepsItsExperts) {
  const WorkerProcess worker;
  at::Tensor expected;
  for (int i = 0; i < 3; ++i) {
    const Model model = load(worker.address());
    const at::Tensor video = generate_clip(model, clip());
    if (i == 0) expected = video;
    EXPECT_TRUE(at::equal(video, expected));
  }
  worker.signal(SIGTERM);
  int loaded = 0;
  while (const std::optional<std::string> line = worker.line())
    loaded += line->find("The experts are loaded") != std::string::npos;
  EXPECT_EQ(loaded, 1);
}

TEST(Worker, OfAnotherCheckpointIsRefused) {
  const TemporaryDirectory directory;
  const ConditionedModel other("ti2v-5b", directory.path() / "model");
  const WorkerProcess worker(other.directory().string());
  const Failure failure = failure_of([&] { load(worker.address()); });
  EXPECT_EQ(failure.status, WAN_INVALID);
  EXPECT_THAT(failure.message, HasSubstr("has other experts than the element's"));
}

TEST(Worker, OfAnotherSecretIsRefusedAndGoesOn) {
  std::unique_ptr<WorkerProcess> worker;
  {
    const Secret secret("theirs");
    worker = std::make_unique<WorkerProcess>();
  }
  for (const char *value : {"", "ours"}) {
    const Secret secret(value);
    const Failure failure = failure_of([&] { load(worker->address()); });
    EXPECT_EQ(failure.status, WAN_INVALID);
    EXPECT_THAT(failure.message, HasSubstr("the same GST_WAN_SECRET"));
  }
  const Secret secret("theirs");
  load(worker->address());
}

TEST(Worker, IsNotReachableFromOutsideWithoutASecret) {
  const std::string model = tiny_model();
  const char *const arguments[] = {WAN_WORKER, "--model", model.c_str(), "--listen", "0.0.0.0:0", nullptr};
  const std::unique_ptr<GSubprocess, Unref> process(
      g_subprocess_newv(arguments, G_SUBPROCESS_FLAGS_STDERR_PIPE, nullptr));
  char *text = nullptr;
  g_subprocess_communicate_utf8(process.get(), nullptr, nullptr, nullptr, &text, nullptr);
  const std::unique_ptr<char, void (*)(gpointer)> errors(text, g_free);
  EXPECT_THAT(errors.get(), HasSubstr("set the environment variable GST_WAN_SECRET"));
  EXPECT_NE(g_subprocess_get_exit_status(process.get()), 0);
}

std::unique_ptr<GSocketConnection, Unref> connect_to(const std::string &address) {
  const std::unique_ptr<GSocketClient, Unref> client(g_socket_client_new());
  return std::unique_ptr<GSocketConnection, Unref>(
      g_socket_client_connect_to_host(client.get(), address.c_str(), 0, nullptr, nullptr));
}

TEST(Worker, StrangersWhoTalkNonsenseOrNothingDoNotHoldItUp) {
  const WorkerProcess worker;
  using namespace std::string_literals;
  for (const std::string &nonsense : {"GET / HTTP/1.1\r\n\r\n"s, "\xff\xff\xff\xff"s, "\x02\0\0\0{}"s, ""s,
                                      "\x05\0\0\0[1,2]"s, "\x40\0\0\0{"s}) {
    const auto connection = connect_to(worker.address());
    GSocket *const socket = g_socket_connection_get_socket(connection.get());
    if (!nonsense.empty()) g_socket_send(socket, nonsense.data(), nonsense.size(), nullptr, nullptr);
  }
  const auto silent = connect_to(worker.address());
  const Model model = load(worker.address());
  EXPECT_EQ(generate_clip(model, clip()).size(0), clip().num_frames);
}

TEST(Worker, IsForGuidanceAndForExpertsThatItHas) {
  const Failure loras = failure_of([] { load("127.0.0.1:1", tiny_model(), {{"a.safetensors", 1, 1}}); });
  EXPECT_EQ(loras.status, WAN_INVALID);
  EXPECT_THAT(loras.message, HasSubstr("has no LoRAs"));
  const Failure endless = failure_of([] { load("127.0.0.1:1", tiny_model() + "-causal"); });
  EXPECT_EQ(endless.status, WAN_INVALID);
  EXPECT_THAT(endless.message, HasSubstr("no guidance"));
}

TEST(Fingerprint, DiffersWhereOneSmallTensorDoes) {
  const TemporaryDirectory directory;
  const auto copy = directory.path() / "model";
  std::filesystem::copy(tiny_model(), copy, std::filesystem::copy_options::recursive);
  const std::string own = fingerprint_experts(tiny_config());
  EXPECT_EQ(fingerprint_experts(CheckpointConfig::read(copy)), own);
  const auto path = copy / "transformer_2" / "diffusion_pytorch_model.safetensors";
  const TensorFile file(path);
  const TensorEntry &bias = file.tensors().at("proj_out.bias");
  const auto begin = std::filesystem::file_size(path) - [&] {
    uint64_t data = 0;
    for (const auto &[name, entry] : file.tensors()) data = std::max(data, entry.end);
    return data;
  }();
  std::fstream changed(path, std::ios::in | std::ios::out | std::ios::binary);
  changed.seekp(static_cast<std::streamoff>(begin + bias.begin));
  changed.put('\x7f');
  changed.close();
  EXPECT_NE(fingerprint_experts(CheckpointConfig::read(copy)), own);
}

/// Two ends of a connection.
class Channels : public testing::Test {
 protected:
  Channels() {
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    raw_ = SocketPointer(g_socket_new_from_fd(ends[0], nullptr));
    channel_ = std::make_unique<Channel>(SocketPointer(g_socket_new_from_fd(ends[1], nullptr)), "The peer",
                                         std::chrono::milliseconds(200));
  }
  void send_raw(const std::string &header, const std::string &tensors = "") const {
    const auto length = static_cast<uint32_t>(header.size());
    const std::string bytes = std::string(reinterpret_cast<const char *>(&length), 4) + header + tensors;
    g_socket_send(raw_.get(), bytes.data(), bytes.size(), nullptr, nullptr);
  }
  std::string refusal(const std::string &header, const std::string &tensors = "",
                      const MessageLimits &limits = kLimits) const {
    send_raw(header, tensors);
    try {
      channel_->receive(limits);
    } catch (const Error &error) {
      return error.what();
    }
    return "received";
  }

  SocketPointer raw_;
  std::unique_ptr<Channel> channel_;
};

TEST_F(Channels, CarryTensorsBitForBit) {
  const at::Tensor numbers = at::randn({2, 3, 4}), half = at::randn({5}).to(at::kBFloat16);
  Channel other(std::move(raw_), "The other");
  std::jthread sender([&] { other.send({"some", {{"n", 7}}, {numbers.transpose(0, 1), {}, half}}); });
  const Message message = channel_->expect("some");
  EXPECT_EQ(message.values.at("n"), 7);
  ASSERT_EQ(message.tensors.size(), 3u);
  EXPECT_TRUE(at::equal(message.tensors[0], numbers.transpose(0, 1)));
  EXPECT_FALSE(message.tensors[1].defined());
  EXPECT_TRUE(at::equal(message.tensors[2], half));
}

TEST_F(Channels, RefuseWhatIsTooLargeBeforeItIsRead) {
  const auto tensor = [](const std::string &shape) {
    return R"({"type": "a", "tensors": [{"dtype": "F32", "shape": )" + shape + "}]}";
  };
  EXPECT_EQ(refusal(tensor("[1]"), "1234"), "received");
  for (const char *shape : {"[1000000000]", "[4294967296, 4294967296]", "[-1]", "[0]", "[1.5]", "\"x\"",
                            "[1, 1, 1, 1, 1, 1, 1]", "[9223372036854775807, 2]"})
    EXPECT_THAT(refusal(tensor(shape)), HasSubstr("'shape'")) << shape;
  EXPECT_THAT(refusal(tensor("[1]"), "", kStrangersLimits), HasSubstr("'shape'"));
  EXPECT_THAT(refusal(R"({"type": "a", "tensors": [{"dtype": "F64", "shape": [1]}]})"), HasSubstr("'dtype'"));
  EXPECT_THAT(refusal(R"({"type": "a", "tensors": [1]})"), HasSubstr("The peer"));
  EXPECT_THAT(refusal(R"({"type": "a", "tensors": [null,null,null,null,null,null,null,null,null]})"),
              HasSubstr("at most 8"));
  EXPECT_THAT(refusal("{\"type\": \"" + std::string(5000, 'a') + "\"}", "", kStrangersLimits),
              HasSubstr("does not speak as gst-wan does"));
}

TEST_F(Channels, SilenceAndAnEndAreErrors) {
  send_raw(R"({"type": "alive"})");
  EXPECT_THAT([&] { channel_->receive(); },
              testing::ThrowsMessage<Error>(HasSubstr("nothing was heard of it for 0.2 seconds")));
  raw_.reset();
  EXPECT_THAT([&] { channel_->receive(); },
              testing::ThrowsMessage<Error>(HasSubstr("closed the connection")));
}

TEST_F(Channels, AnAnswerWaitsForAPeerThatIsBusy) {
  const Message large = {"large", Json::object(), {at::zeros({4 << 20})}};
  Channel other(std::move(raw_), "The other", std::chrono::milliseconds(50));
  std::jthread sender([&] { other.send_answer(large); });
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_EQ(channel_->expect("large").tensors.front().numel(), 4 << 20);
  sender.join();
  EXPECT_THAT([&] { other.send(large); },
              testing::ThrowsMessage<Error>(HasSubstr("nothing was heard of it for 0.05 seconds")));
}

/// Two ends of a TCP connection over loopback.
std::array<SocketPointer, 2> connect_over_tcp() {
  const SocketPointer listener(
      g_socket_new(G_SOCKET_FAMILY_IPV4, G_SOCKET_TYPE_STREAM, G_SOCKET_PROTOCOL_TCP, nullptr));
  SocketPointer one(g_socket_new(G_SOCKET_FAMILY_IPV4, G_SOCKET_TYPE_STREAM, G_SOCKET_PROTOCOL_TCP, nullptr));
  const std::unique_ptr<GSocketAddress, Unref> any(g_inet_socket_address_new_from_string("127.0.0.1", 0));
  EXPECT_TRUE(g_socket_bind(listener.get(), any.get(), FALSE, nullptr));
  EXPECT_TRUE(g_socket_listen(listener.get(), nullptr));
  const std::unique_ptr<GSocketAddress, Unref> address(g_socket_get_local_address(listener.get(), nullptr));
  EXPECT_TRUE(g_socket_connect(one.get(), address.get(), nullptr, nullptr));
  return {std::move(one), SocketPointer(g_socket_accept(listener.get(), nullptr, nullptr))};
}

/// The kernel takes nothing more for it, and so acknowledges nothing, as that of a host without power.
void vanish(GSocket *socket) {
  sock_filter drop = BPF_STMT(BPF_RET | BPF_K, 0);
  const sock_fprog program = {1, &drop};
  EXPECT_EQ(setsockopt(g_socket_get_fd(socket), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)), 0);
}

TEST(Channel, FindsOutThatAHostHasVanished) {
  for (const int64_t numbers : {1, 8 << 20}) {  // what the system keeps, and more
    auto [one, other] = connect_over_tcp();
    Channel channel(std::move(one), "The peer", std::chrono::milliseconds(100));
    vanish(other.get());
    EXPECT_THAT(
        [&] {
          channel.send_answer({"answer", Json::object(), {at::zeros({numbers})}});
          channel.wait();
        },
        testing::ThrowsMessage<Error>(HasSubstr("its host has not answered for 0.3 seconds")));
  }
}

TEST(Channel, WaitsForAHostThatIsThere) {
  auto [one, other] = connect_over_tcp();
  Channel channel(std::move(one), "The peer", std::chrono::milliseconds(50));
  Channel peer(std::move(other), "The other");
  std::jthread sender([&] {
    channel.send_answer({"answer", Json::object(), {at::zeros({8 << 20})}});
    EXPECT_TRUE(channel.wait());
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(600));
  EXPECT_EQ(peer.expect("answer").tensors.front().numel(), 8 << 20);
  std::this_thread::sleep_for(std::chrono::milliseconds(600));
  peer.send({"next"});
}

TEST_F(Channels, AnErrorOfThePeerIsThrown) {
  send_raw(R"({"type": "error", "values": {"status": 3, "message": "no room"}})");
  try {
    channel_->receive();
    ADD_FAILURE() << "received";
  } catch (const Error &error) {
    EXPECT_EQ(error.kind(), WAN_OUT_OF_MEMORY);
    EXPECT_STREQ(error.what(), "The peer says: no room");
  }
}

}  // namespace
}  // namespace wan::test
