//! The program: reads the command line, starts tracing and the runtime, runs the verb, gives the exit code.

use std::process::ExitCode;

use bsonvault::cli;
use bsonvault::error::{Error, ErrorKind};
use tracing_subscriber::EnvFilter;

/// Buffers here are megabytes large and live shortly. The C library keeps what its arenas got, per thread: an import of a gigabyte
/// peaked at four times the resident memory that its buffers ever had.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let command_line = match cli::parse(std::env::args_os()) {
        Ok(command_line) => command_line,
        Err(code) => return code,
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            let error = Error::new(ErrorKind::Internal, format!("cannot start the runtime: {e}")).cause(e);
            return cli::output::finish(Err(error), command_line.json);
        }
    };
    let code = runtime.block_on(cli::run(command_line));
    // What may still be under way after an interruption is a blocking call; it is not waited for.
    runtime.shutdown_background();
    code
}
