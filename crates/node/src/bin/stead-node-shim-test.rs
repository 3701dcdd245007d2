//! The shim for the tests of this crate: the engine starts it for every sandbox.

fn main() {
    std::process::exit(stead_runtime::shim_main(std::env::args_os().skip(2)));
}
