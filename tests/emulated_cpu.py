#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs a program on a CPU with AVX-512 and BF16 where this machine has none.

    emulated_cpu.py [--without PART] [--count FUNCTION] PROGRAM [ARGUMENT...]

The CPU is Bochs' Sapphire Rapids, from the package bochscpu-python. PROGRAM is linked statically, for
x86-64 Linux; what it asks of the system is answered here, as far as tests of the library need it: memory,
output, one CPU, no threads, no files. It sees the environment's PAGEATTN_* variables. The exit status is
the program's, or 139 if it reads, writes or executes what it may not.

--without bf16 takes a Tiger Lake, which has AVX-512 and no BF16; --without zmm and --without ymm a system that
does not save these registers, so that programs must not use them.

--count prints on standard error how many instructions FUNCTION's first call took, with all that it called.
"""

import argparse
import ctypes
import errno
import mmap
import os
import struct
import subprocess
import sys
import time

import bochscpu
from bochscpu import _bochscpu
from bochscpu import memory as physical_memory

PAGE = 4096
# Virtual addresses are physical ones. Below the program lie four levels of page tables, of which the last,
# one entry for each page, is one array.
MEMORY_BYTES = 1 << 32
ROOT, DIRECTORY_POINTERS, DIRECTORIES, KERNEL = 0x1000, 0x2000, 0x3000, 0x7000
HEAP, STACK_END = 0x4000_0000, 0xE000_0000
STACK_BYTES = 8 << 20
PAGE_TABLES = STACK_END
PRESENT, WRITABLE, USER, NO_EXECUTE = 1, 2, 4, 1 << 63
TABLE_ENTRY = PRESENT | WRITABLE | USER

# What SYSCALL enters: WBINVD, which calls us; then CR3 anew, as page tables may have changed; back.
SAVED_RAX = KERNEL + 0x100
KERNEL_CODE = b"".join(
    (
        b"\x0f\x09",  # wbinvd
        b"\x48\x89\x04\x25" + struct.pack("<i", SAVED_RAX),  # mov [SAVED_RAX], rax
        b"\x0f\x20\xd8",  # mov rax, cr3
        b"\x0f\x22\xd8",  # mov cr3, rax
        b"\x48\x8b\x04\x25" + struct.pack("<i", SAVED_RAX),  # mov rax, [SAVED_RAX]
        b"\x48\x0f\x07",  # sysretq
    )
)

# Extended control register 0, which says what the system saves: x87 and SSE, AVX, AVX-512.
SAVES_ALL = 0xE7
SAVES = {"zmm": 0x07, "ymm": 0x03}

PROT_READ, PROT_WRITE, PROT_EXEC = 1, 2, 4
MAP_ANONYMOUS, MAP_FIXED = 0x20, 0x10
MAP_NORESERVE = 0x4000
ARCH_SET_FS = 0x1002
STATUS_OF_FAULT = 128 + 11
PAGE_FAULT, INVALID_OPCODE = 14, 6


def fail(message):
    sys.exit(f"emulated_cpu.py: {message}")


def make_it_a_sapphire_rapids():
    """The package always makes a Tiger Lake, which lacks BF16: a jump leads from that model to the other."""
    library = ctypes.CDLL(_bochscpu.__file__)

    def address(symbol):
        return ctypes.cast(getattr(library, symbol), ctypes.c_void_p).value

    place = address("_Z22create_tigerlake_cpuidP8BX_CPU_C")
    target = address("_Z28create_sapphire_rapids_cpuidP8BX_CPU_C")
    libc = ctypes.CDLL(None, use_errno=True)
    everything = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    if libc.mprotect(ctypes.c_void_p(place // PAGE * PAGE), ctypes.c_size_t(2 * PAGE), everything) != 0:
        fail(f"cannot write to the emulator's code: {os.strerror(ctypes.get_errno())}")
    ctypes.memmove(place, b"\xe9" + struct.pack("<i", target - (place + 5)), 5)


class Memory:
    """Physical memory and the page tables in it."""

    def __init__(self):
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
        self.bytes = mmap.mmap(-1, MEMORY_BYTES, flags=flags)
        self.host_address = ctypes.addressof(ctypes.c_char.from_buffer(self.bytes))
        self.write_words(ROOT, [DIRECTORY_POINTERS | TABLE_ENTRY])
        self.write_words(DIRECTORY_POINTERS, [DIRECTORIES + PAGE * i | TABLE_ENTRY for i in range(4)])
        self.write_words(DIRECTORIES, [PAGE_TABLES + PAGE * i | TABLE_ENTRY for i in range(4 * 512)])
        self.write(KERNEL, KERNEL_CODE)
        self.write_words(PAGE_TABLES + KERNEL // PAGE * 8, [KERNEL | PRESENT | WRITABLE])

    def provide(self, physical):
        """Called where the CPU comes to a page for the first time."""
        page = physical // PAGE * PAGE
        physical_memory.page_insert(page, self.host_address + page)

    def read(self, at, size):
        return self.bytes[at : at + size]

    def write(self, at, data):
        self.bytes[at : at + len(data)] = data

    def write_words(self, at, words):
        self.write(at, struct.pack(f"<{len(words)}Q", *words))

    def protect(self, begin, size, protection):
        """The pages of [begin, begin + size) may be used as `protection` says."""
        flags = 0 if protection == 0 else PRESENT | USER
        flags |= WRITABLE if protection & PROT_WRITE else 0
        flags |= 0 if protection & PROT_EXEC else NO_EXECUTE
        pages = range(begin // PAGE, (begin + size + PAGE - 1) // PAGE)
        self.write_words(PAGE_TABLES + pages.start * 8, [page * PAGE | flags for page in pages])


class Program:
    """A static ELF executable, put into memory as Linux does it."""

    def __init__(self, memory, arguments, environment):
        with open(arguments[0], "rb") as file:
            self.image = file.read()
        if self.image[:6] != b"\x7fELF\x02\x01" or struct.unpack_from("<HH", self.image, 16) != (2, 62):
            fail(f"{arguments[0]} is not an executable of fixed address for x86-64; link it with -static")
        self.memory = memory
        (self.entry,) = struct.unpack_from("<Q", self.image, 24)
        self.load_segments()
        self.push_arguments(arguments, environment)

    def load_segments(self):
        (table,) = struct.unpack_from("<Q", self.image, 32)
        self.header_bytes, self.num_headers = struct.unpack_from("<HH", self.image, 54)
        self.break_begin = 0
        for i in range(self.num_headers):
            kind, flags, offset, begin, _, file_bytes, size, _ = struct.unpack_from(
                "<IIQQQQQQ", self.image, table + i * self.header_bytes
            )
            if kind != 1:  # PT_LOAD
                continue
            self.memory.write(begin, self.image[offset : offset + file_bytes])
            # Of the flags of a segment, bit 0 is execute and bit 2 is read; of a protection the reverse.
            protection = (flags & 2) | (flags >> 2 & 1) | (flags & 1) << 2
            self.memory.protect(begin, size, protection)
            end = (begin + size + PAGE - 1) // PAGE * PAGE
            self.break_begin = max(self.break_begin, end)
            if offset <= table < offset + file_bytes:
                self.headers = begin + table - offset

    def push_arguments(self, arguments, environment):
        self.memory.protect(STACK_END - STACK_BYTES, STACK_BYTES, PROT_READ | PROT_WRITE)
        at = STACK_END

        def push_string(text):
            nonlocal at
            data = text.encode() + b"\0"
            at -= len(data)
            self.memory.write(at, data)
            return at

        argument_pointers = [push_string(text) for text in arguments]
        environment_pointers = [push_string(text) for text in environment]
        random = at = (at - 16) // 16 * 16
        auxiliary = {3: self.headers, 4: self.header_bytes, 5: self.num_headers, 6: PAGE, 9: self.entry}
        auxiliary |= {11: 0, 12: 0, 13: 0, 14: 0, 23: 0, 25: random}  # nobody's ids; AT_RANDOM
        words = [len(arguments), *argument_pointers, 0, *environment_pointers, 0]
        words += [word for pair in auxiliary.items() for word in pair] + [0, 0]
        self.stack = (at - 8 * len(words)) // 16 * 16
        self.memory.write_words(self.stack, words)


class System:
    """What Linux does for the program, or refuses."""

    def __init__(self, memory, break_begin):
        self.memory = memory
        self.break_end = break_begin
        self.heap_end = HEAP
        self.calls = {
            1: self.write,
            3: lambda *_: 0,  # close
            5: self.no_such_call,  # fstat
            9: self.map,
            10: self.protect,
            11: self.unmap,
            12: self.move_break,
            13: lambda *_: 0,  # rt_sigaction
            14: lambda *_: 0,  # rt_sigprocmask
            16: lambda *_: -errno.ENOTTY,  # ioctl
            20: self.write_vector,
            28: lambda *_: 0,  # madvise
            39: lambda *_: 1,  # getpid
            56: lambda *_: -errno.EAGAIN,  # clone
            89: lambda *_: -errno.ENOENT,  # readlink
            99: self.no_such_call,  # sysinfo
            158: self.set_thread_pointer,
            204: self.get_affinity,
            218: lambda *_: 1,  # set_tid_address
            228: self.get_time,
            257: lambda *_: -errno.ENOENT,  # openat
            262: self.no_such_call,  # newfstatat
            273: lambda *_: 0,  # set_robust_list
            302: self.no_such_call,  # prlimit64
            318: self.no_such_call,  # getrandom
            334: self.no_such_call,  # rseq
            435: lambda *_: -errno.EAGAIN,  # clone3
        }
        self.cpu = None

    @staticmethod
    def no_such_call(*_):
        return -errno.ENOSYS

    def write(self, file, begin, size):
        os.write(file, self.memory.read(begin, size))
        return size

    def write_vector(self, file, vector, count):
        parts = struct.unpack(f"<{2 * count}Q", self.memory.read(vector, 16 * count))
        return sum(self.write(file, *part) for part in zip(parts[::2], parts[1::2], strict=True))

    def map(self, _, size, protection, flags, *__):
        if not flags & MAP_ANONYMOUS or flags & MAP_FIXED:
            return -errno.ENODEV
        begin = self.heap_end
        end = begin + (size + PAGE - 1) // PAGE * PAGE
        if end > STACK_END - STACK_BYTES:
            return -errno.ENOMEM
        self.heap_end = end + PAGE  # that is never mapped: who runs over the end, is seen
        self.memory.protect(begin, size, protection)
        return begin

    def protect(self, begin, size, protection):
        self.memory.protect(begin, size, protection)
        return 0

    def unmap(self, begin, size, *_):
        self.memory.protect(begin, size, 0)
        return 0

    def move_break(self, end, *_):
        if end > self.break_end:
            self.memory.protect(self.break_end, end - self.break_end, PROT_READ | PROT_WRITE)
            self.break_end = end
        return self.break_end

    def set_thread_pointer(self, which, address, *_):
        if which != ARCH_SET_FS:
            return -errno.EINVAL
        segment = self.cpu.fs
        segment.base = address
        self.cpu.fs = segment
        return 0

    def get_affinity(self, _, __, mask):
        self.memory.write_words(mask, [1])
        return 8

    def get_time(self, _, place, *__):
        self.memory.write_words(place, divmod(time.monotonic_ns(), 10**9))
        return 0


class Emulator:
    """The CPU, in 64-bit user mode from the program's entry on."""

    def __init__(self, arguments, environment, saved_registers, counted_address):
        self.memory = Memory()
        program = Program(self.memory, arguments, environment)
        self.system = System(self.memory, program.break_begin)
        self.status = None
        self.num_instructions = 0
        self.session = bochscpu.Session()
        self.session.missing_page_handler = self.memory.provide
        self.session.cpu.state = self.first_state(program, saved_registers)
        self.system.cpu = self.session.cpu
        self.hook = bochscpu.Hook()
        self.hook.cache_cntrl = self.on_system_call
        self.hook.exception = self.on_exception
        self.hooks = [self.hook]
        self.counted_address = counted_address
        if counted_address is not None:
            self.counting_hook = bochscpu.Hook()
            self.counting_hook.after_execution = self.count_instruction
            self.hook.ucnear_branch = self.on_branch

    @staticmethod
    def first_state(program, saved_registers):
        def segment(selector, attributes):
            result = bochscpu.Segment()
            result.present, result.selector, result.attr = True, selector, attributes
            result.base, result.limit = 0, 0xFFFF_FFFF
            return result

        state = bochscpu.State()
        state.cr0 = 0x8001_0033  # paging, protection, no emulation of x87
        state.cr3 = ROOT
        state.cr4 = 0x5_0620  # physical address extension, SSE, XSAVE, FSGSBASE
        state.efer = 0xD01  # long mode, SYSCALL, no-execute
        state.xcr0 = saved_registers
        state.mxcsr, state.mxcsr_mask, state.fpcw, state.rflags = 0x1F80, 0xFFFF, 0x37F, 2
        state.star = 0x23 << 48 | 0x10 << 32
        state.lstar = KERNEL
        state.rip, state.rsp = program.entry, program.stack
        state.cs = segment(0x33, 0xA0FB)
        for name in ("ss", "ds", "es", "fs", "gs"):
            setattr(state, name, segment(0x2B, 0xC0F3))
        state.tr, state.ldtr = segment(0x40, 0x8B), segment(0, 0x82)
        return state

    def on_system_call(self, _, __, ___):
        cpu = self.session.cpu
        number = cpu.rax
        if number in (60, 231):  # exit, exit_group
            self.stop(cpu.rdi & 0xFF)
        elif number not in self.system.calls:
            self.give_up(126, f"system call {number} is not emulated")
        else:
            arguments = (cpu.rdi, cpu.rsi, cpu.rdx, cpu.r10, cpu.r8, cpu.r9)
            call = self.system.calls[number]
            num_arguments = 6 if number == 9 else 3
            cpu.rax = call(*arguments[:num_arguments]) % (1 << 64)

    def on_exception(self, _, __, vector, ___):
        cpu = self.session.cpu
        at = f"at instruction {cpu.rip:#x}"
        if vector == PAGE_FAULT:
            self.give_up(STATUS_OF_FAULT, f"the program may not touch {cpu.cr2:#x}, {at}")
        elif vector == INVALID_OPCODE:
            self.give_up(128 + 4, f"this CPU does not know the instruction, {at}")
        else:
            self.give_up(STATUS_OF_FAULT, f"exception {vector}, {at}")

    def on_branch(self, _, __, ___, begin, end):
        """From the call of the function on to the return behind it, instructions are counted."""
        if self.num_instructions == 0 and end == self.counted_address:
            self.after_call = range(begin, begin + 16)
            self.hooks = [self.counting_hook, self.hook]
            self.session.stop()  # and run() goes on
        elif self.num_instructions > 0 and end in self.after_call:
            self.hooks = [self.hook]
            self.session.stop()
            self.counted_address = None
            print(f"instructions : {self.num_instructions}", file=sys.stderr)

    def count_instruction(self, *_):
        self.num_instructions += 1

    def give_up(self, status, message):
        print(f"emulated_cpu.py: {message}", file=sys.stderr)
        self.stop(status)

    def stop(self, status):
        self.status = status
        self.session.stop()

    def run(self):
        while self.status is None:
            self.session.run(self.hooks)
        return self.status


def address_of(program, function):
    symbols = subprocess.run(["nm", program], check=True, capture_output=True, text=True).stdout
    for line in symbols.splitlines():
        if line.endswith(f" T {function}"):
            return int(line.split()[0], 16)
    return fail(f"{program} has no function {function}")


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1].strip())
    parser.add_argument("--without", choices=["bf16", *SAVES])
    parser.add_argument("--count", metavar="FUNCTION")
    parser.add_argument("program", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if not options.program:
        parser.error("which program?")
    environment = [f"{name}={value}" for name, value in os.environ.items() if name.startswith("PAGEATTN_")]
    saved_registers = SAVES.get(options.without, SAVES_ALL)
    if options.without != "bf16":
        make_it_a_sapphire_rapids()
    try:
        counted_address = address_of(options.program[0], options.count) if options.count else None
        status = Emulator(options.program, environment, saved_registers, counted_address).run()
    except OSError as error:
        fail(error)
    sys.stderr.flush()
    os._exit(status)  # not by way of the package's own end, which faults


if __name__ == "__main__":
    main()
