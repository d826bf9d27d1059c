// Compiled once for all tests and benchmarks that use LibTorch, as src/pch/engine.h is for the engine. Each
// source still includes what it uses.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
