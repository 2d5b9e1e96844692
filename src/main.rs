//! The `horace` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    horace::cli::main()
}
