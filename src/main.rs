//! The command `dirnet`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    dirnet::cli::main()
}
