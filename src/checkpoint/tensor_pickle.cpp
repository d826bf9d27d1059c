// SPDX-License-Identifier: LGPL-2.1-or-later
#include "checkpoint/tensor_pickle.h"

#include <array>
#include <cstring>
#include <map>
#include <unordered_map>
#include <utility>

#include "error.h"

namespace wan {

namespace {

using Kind = PickleValue::Kind;

constexpr size_t kMaxValues = 2'000'000, kMaxText = 4096, kMaxDimensions = 64;
constexpr std::string_view kRebuildTensor = "torch._utils._rebuild_tensor_v2",
                           kRebuildParameter = "torch._utils._rebuild_parameter",
                           kOrderedDict = "collections.OrderedDict";

/// torch's storages, and safetensors' name for what they hold.
const std::map<std::string_view, const char *> &storages() {
  static const std::map<std::string_view, const char *> names = {
      {"torch.FloatStorage", "F32"},     {"torch.DoubleStorage", "F64"}, {"torch.HalfStorage", "F16"},
      {"torch.BFloat16Storage", "BF16"}, {"torch.LongStorage", "I64"},   {"torch.IntStorage", "I32"},
      {"torch.ShortStorage", "I16"},     {"torch.CharStorage", "I8"},    {"torch.ByteStorage", "U8"},
      {"torch.BoolStorage", "BOOL"}};
  return names;
}

bool is_known_global(std::string_view name) {
  return name == kRebuildTensor || name == kRebuildParameter || name == kOrderedDict ||
         storages().contains(name);
}

/// Python's pickle machine (https://docs.python.org/3/library/pickletools.html) as far as torch.save() needs
/// it.
class Machine {
 public:
  Machine(std::string_view pickle, const std::string &source) : rest_(pickle), source_(source) {}

  std::deque<PickleValue> run() {
    while (step(static_cast<unsigned char>(take(1)[0]))) {
    }
    values_.push_back(values_[pop()]);
    return std::move(values_);
  }

 private:
  Error refused(const std::string &what) const {
    return invalid(source_ + ": " + what + ", which is nothing that a file of tensors needs");
  }
  Error damaged() const { return invalid(source_ + ": its pickle is damaged; download it again"); }

  std::string_view take(uint64_t size) {
    if (size > rest_.size()) throw damaged();
    const std::string_view taken = rest_.substr(0, static_cast<size_t>(size));
    rest_.remove_prefix(static_cast<size_t>(size));
    return taken;
  }
  template <typename T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  std::string_view line() {
    const size_t end = rest_.find('\n');
    if (end == std::string_view::npos) throw damaged();
    const std::string_view text = take(end);
    take(1);
    return text;
  }

  void push(PickleValue value) {
    if (values_.size() == kMaxValues)
      throw invalid(source_ + ": its pickle has more than " + std::to_string(kMaxValues) + " values");
    values_.push_back(std::move(value));
    stack_.push_back(values_.size() - 1);
  }
  void push_text(uint64_t size) {
    const std::string_view text = take(size);
    if (size > kMaxText) throw refused("a text of " + std::to_string(size) + " bytes");
    push({.kind = Kind::kText, .text = std::string(text)});
  }
  size_t pop() {
    if (stack_.size() <= bottom()) throw damaged();
    const size_t value = stack_.back();
    stack_.pop_back();
    return value;
  }
  size_t bottom() const { return marks_.empty() ? 0 : marks_.back(); }
  size_t top() const {
    if (stack_.size() <= bottom()) throw damaged();
    return stack_.back();
  }
  std::vector<size_t> pop_to_mark() {
    if (marks_.empty()) throw damaged();
    const auto begin = stack_.begin() + static_cast<ptrdiff_t>(marks_.back());
    std::vector<size_t> items(begin, stack_.end());
    stack_.erase(begin, stack_.end());
    marks_.pop_back();
    return items;
  }
  void push_tuple(size_t count) {
    std::vector<size_t> items(count);
    for (size_t i = count; i-- > 0;) items[i] = pop();
    push({.kind = Kind::kTuple, .items = std::move(items)});
  }

  void remember(uint64_t place) { memo_[place] = top(); }
  void recall(uint64_t place) {
    const auto found = memo_.find(place);
    if (found == memo_.end()) throw damaged();
    stack_.push_back(found->second);
  }

  /// Onto a list or a dictionary.
  void append(const std::vector<size_t> &items, Kind kind) {
    PickleValue &value = values_[top()];
    if (value.kind != kind || (kind == Kind::kDict && items.size() % 2)) throw damaged();
    added_ += items.size();
    if (added_ > kMaxValues) throw damaged();
    value.items.insert(value.items.end(), items.begin(), items.end());
  }

  void push_global(const std::string &name) {
    if (!is_known_global(name)) throw refused("it holds a " + printable(name));
    push({.kind = Kind::kGlobal, .text = name});
  }
  void push_stack_global() {
    const std::string name = values_[pop()].text, module = values_[pop()].text;
    push_global(module + "." + name);
  }

  const PickleValue &item(const PickleValue &tuple, size_t index, Kind kind) const {
    if (tuple.kind != Kind::kTuple || index >= tuple.items.size()) throw damaged();
    const PickleValue &value = values_[tuple.items[index]];
    if (value.kind != kind) throw damaged();
    return value;
  }

  /// ('storage', torch.FloatStorage, '0', 'cpu', 42).
  void push_storage() {
    const PickleValue &id = values_[pop()];
    const auto type = storages().find(item(id, 1, Kind::kGlobal).text);
    if (item(id, 0, Kind::kText).text != "storage" || type == storages().end()) throw damaged();
    const int64_t elements = item(id, 4, Kind::kNumber).number;
    if (elements < 0) throw damaged();
    push({.kind = Kind::kStorage,
          .number = elements,
          .text = item(id, 2, Kind::kText).text,
          .dtype = type->second});
  }

  std::vector<int64_t> lengths(const PickleValue &tuple) const {
    if (tuple.items.size() > kMaxDimensions) throw damaged();
    std::vector<int64_t> lengths;
    for (size_t i = 0; i < tuple.items.size(); ++i) {
      lengths.push_back(item(tuple, i, Kind::kNumber).number);
      if (lengths.back() < 0) throw damaged();
    }
    return lengths;
  }

  /// (storage, first element, shape, strides, …).
  void push_tensor(const PickleValue &arguments) {
    item(arguments, 0, Kind::kStorage);
    PickleValue tensor = {.kind = Kind::kTensor,
                          .number = item(arguments, 1, Kind::kNumber).number,
                          .items = {arguments.items[0]},
                          .shape = lengths(item(arguments, 2, Kind::kTuple)),
                          .strides = lengths(item(arguments, 3, Kind::kTuple))};
    if (tensor.number < 0 || tensor.shape.size() != tensor.strides.size()) throw damaged();
    push(std::move(tensor));
  }

  void call() {
    const PickleValue &arguments = values_[pop()], &function = values_[pop()];
    if (arguments.kind != Kind::kTuple || function.kind != Kind::kGlobal) throw damaged();
    if (function.text == kRebuildTensor) return push_tensor(arguments);
    if (function.text == kOrderedDict && arguments.items.empty()) return push({.kind = Kind::kDict});
    if (function.text != kRebuildParameter) throw refused("it calls " + function.text);
    item(arguments, 0, Kind::kTensor);
    stack_.push_back(arguments.items[0]);
  }

  /// Little endian, in two's complement.
  void push_long(uint64_t size) {
    const std::string_view bytes = take(size);
    if (size > sizeof(int64_t)) throw refused("a number of " + std::to_string(size) + " bytes");
    uint64_t value = !bytes.empty() && (static_cast<unsigned char>(bytes.back()) & 0x80) ? ~uint64_t{0} : 0;
    std::memcpy(&value, bytes.data(), bytes.size());
    push_number(static_cast<int64_t>(value));
  }
  void push_number(int64_t value) { push({.kind = Kind::kNumber, .number = value}); }

  /// False where the pickle ends.
  bool step(unsigned char operation) {
    switch (operation) {
      case 0x80:  // PROTO
        take(1);
        return true;
      case 0x95:  // FRAME
        take(8);
        return true;
      case '.':
        return false;
      case '(':
        marks_.push_back(stack_.size());
        return true;
      case 'N':
        push({});
        return true;
      case 0x88:  // NEWTRUE
      case 0x89:  // NEWFALSE
        push_number(operation == 0x88);
        return true;
      case 'J':
        push_number(number<int32_t>());
        return true;
      case 'K':
        push_number(number<uint8_t>());
        return true;
      case 'M':
        push_number(number<uint16_t>());
        return true;
      case 0x8a:  // LONG1
        push_long(number<uint8_t>());
        return true;
      case 'G':  // a float, which says nothing about tensors
        take(8);
        push({});
        return true;
      default:
        return step_values(operation);
    }
  }

  bool step_values(unsigned char operation) {
    switch (operation) {
      case 'X':
        push_text(number<uint32_t>());
        return true;
      case 0x8c:  // SHORT_BINUNICODE
        push_text(number<uint8_t>());
        return true;
      case '}':
        push({.kind = Kind::kDict});
        return true;
      case ']':
        push({.kind = Kind::kList});
        return true;
      case ')':
        push_tuple(0);
        return true;
      case 0x85:  // TUPLE1 to TUPLE3
      case 0x86:
      case 0x87:
        push_tuple(operation - 0x84);
        return true;
      case 't':
        push({.kind = Kind::kTuple, .items = pop_to_mark()});
        return true;
      case 'a':
        append({pop()}, Kind::kList);
        return true;
      case 'e':
        append(pop_to_mark(), Kind::kList);
        return true;
      case 's': {
        const size_t value = pop(), key = pop();
        append({key, value}, Kind::kDict);
        return true;
      }
      case 'u':
        append(pop_to_mark(), Kind::kDict);
        return true;
      default:
        return step_objects(operation);
    }
  }

  bool step_objects(unsigned char operation) {
    switch (operation) {
      case 'q':
        remember(number<uint8_t>());
        return true;
      case 'r':
        remember(number<uint32_t>());
        return true;
      case 0x94:  // MEMOIZE
        remember(memo_.size());
        return true;
      case 'h':
        recall(number<uint8_t>());
        return true;
      case 'j':
        recall(number<uint32_t>());
        return true;
      case 'c': {
        const std::string module(line());
        push_global(module + "." + std::string(line()));
        return true;
      }
      case 0x93:  // STACK_GLOBAL
        push_stack_global();
        return true;
      case 'Q':
        push_storage();
        return true;
      case 'R':
        call();
        return true;
      case 'b':  // attributes of an OrderedDict, which say nothing about tensors
        pop();
        if (values_[top()].kind != Kind::kDict) throw damaged();
        return true;
      default:
        throw refused("its pickle has the operation " + std::to_string(operation));
    }
  }

  std::string_view rest_;
  const std::string &source_;
  std::deque<PickleValue> values_;
  std::vector<size_t> stack_, marks_;
  std::unordered_map<uint64_t, size_t> memo_;
  size_t added_ = 0;  // to lists and dictionaries
};

}  // namespace

std::deque<PickleValue> read_tensor_pickle(std::string_view pickle, const std::string &source) {
  return Machine(pickle, source).run();
}

}  // namespace wan
