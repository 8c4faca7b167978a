//! `strata`: the command line, the supervisor and every daemon in one executable.

fn main() -> std::process::ExitCode {
    strata::lab::become_strata_if_asked().unwrap_or_else(strata::main)
}
