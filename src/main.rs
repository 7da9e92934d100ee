//! The program.

use std::process::ExitCode;

/// Buffers here are megabytes large and short-lived. The C library keeps freed memory in its
/// arenas, per thread: an import of a gigabyte peaked at four times the resident memory of its
/// buffers.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    bsonvault::cli::main(std::env::args_os())
}
