//! The shim program of this crate's tests: what the `stead` binary does with its hidden argument, and a helper that opens an
//! engine to be killed.

fn main() {
    let mut args = std::env::args_os().skip(1);
    let code = match args.next().as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("__shim") => stead_runtime::shim_main(args),
        Some("hold") => hold(args),
        _ => 2,
    };
    std::process::exit(code);
}

/// Opens the engine of `root run cgroup` and holds it until it is killed; says `ready` on standard output.
fn hold(mut args: impl Iterator<Item = std::ffi::OsString>) -> i32 {
    let mut next = || args.next().expect("arguments: root run cgroup");
    let options = stead_runtime::embedded::Options {
        root: next().into(),
        run: next().into(),
        cgroup_root: next().into_string().expect("cgroup is text"),
        shim: stead_runtime::embedded::ShimCommand::default(),
        registries: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let engine = stead_runtime::embedded::open(options).await.expect("engine opens");
        println!("ready");
        std::future::pending::<()>().await;
        drop(engine);
    });
    0
}
