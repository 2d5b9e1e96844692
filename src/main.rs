//! The `horace` program.

fn main() {}
