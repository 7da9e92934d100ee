//! The program: reads the command line and the settings, starts logs and the runtime, runs the verb, gives the exit code.

use std::process::ExitCode;

use bsonvault::cli;
use bsonvault::error::{Error, ErrorKind};

/// Buffers here are megabytes large and live shortly. The C library keeps what its arenas got, per thread: an import of a gigabyte
/// peaked at four times the resident memory that its buffers ever had.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // How logs are written is a setting: until all of them are read there is nothing to log, and errors are told by themselves.
    let ready = match cli::parse(std::env::args_os()).and_then(cli::prepare) {
        Ok(ready) => ready,
        Err(code) => return code,
    };
    ready.start_logs();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            let error = Error::new(ErrorKind::Internal, format!("cannot start the runtime: {e}")).cause(e);
            return cli::output::finish(Err(error), ready.json());
        }
    };
    let code = runtime.block_on(cli::run(ready));
    // What may still be under way after an interruption is a blocking call; it is not waited for.
    runtime.shutdown_background();
    code
}
