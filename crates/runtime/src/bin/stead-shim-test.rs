//! The shim program of this crate's tests: what the `stead` binary does with its hidden argument, and a helper that opens an
//! engine to be killed.

use stead_runtime::embedded::{self, Options, ShimCommand};
use stead_runtime::{ContainerConfig, SandboxConfig};

fn main() {
    let mut args = std::env::args_os().skip(1);
    let code = match args.next().as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("__shim") => stead_runtime::shim_main(args),
        Some("hold") => hold(args),
        _ => 2,
    };
    std::process::exit(code);
}

/// Opens the engine of `root run cgroup`, starts a container of `image` that runs the shell `script`, says `ready` on standard
/// output and holds the engine until it is killed.
fn hold(mut args: impl Iterator<Item = std::ffi::OsString>) -> i32 {
    let mut next = || args.next().and_then(|arg| arg.into_string().ok()).expect("five arguments");
    let options = Options {
        root: next().into(),
        run: next().into(),
        cgroup_root: next(),
        shim: ShimCommand::default(),
        registries: None,
    };
    let config = ContainerConfig {
        image: next(),
        command: vec!["sh".to_owned(), "-c".to_owned(), next()],
        log_path: "held/0.log".into(),
        ..ContainerConfig::default()
    };
    let logs = options.root.with_file_name("logs");
    let sandbox = SandboxConfig { log_directory: logs, cgroup_parent: "held".to_owned(), ..SandboxConfig::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let engine = embedded::open(options).await.expect("engine opens");
        let sandbox = engine.run_sandbox(sandbox).await.expect("sandbox runs");
        let container = engine.create_container(&sandbox, config).await.expect("container is made");
        engine.start_container(&container).await.expect("container starts");
        println!("ready");
        std::future::pending::<()>().await;
    });
    0
}
