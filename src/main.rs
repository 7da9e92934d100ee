//! The program.

use std::process::ExitCode;

/// Buffers here are megabytes large and live shortly. The C library keeps what its arenas got, per thread: an import of a gigabyte
/// peaked at four times the resident memory that its buffers ever had.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    bsonvault::cli::main(std::env::args_os())
}
