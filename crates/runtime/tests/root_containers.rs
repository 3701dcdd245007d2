//! Containers by the embedded engine, as root on a real kernel.

mod support;

use stead_runtime::*;
use support::*;

#[tokio::test]
async fn runs_logs_and_reports_the_exit() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    let before = std::time::Instant::now();
    let (exit, output) = world.run(&sandbox, script("a", "echo out; echo err >&2; printf half; exit 7")).await;
    println!("create to exit: {:?}", before.elapsed());
    assert_eq!((exit.code, exit.signal, exit.oom_killed, exit.start_error.clone()), (7, None, false, None));
    assert_eq!(output.lines().collect::<Vec<_>>().len(), 3, "{output}");
    let log = world.log("a");
    assert!(
        log.contains(" stdout F out\n") && log.contains(" stderr F err\n") && log.contains(" stdout P half\n"),
        "{log}"
    );
    world.engine().remove_sandbox(&sandbox).await.unwrap();
    assert!(world.engine().containers().await.unwrap().is_empty());
}

#[tokio::test]
async fn executes_commands() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    let id = world.start(&sandbox, script("a", "sleep 1000")).await;
    let engine = world.engine();
    assert_eq!(
        exec(&engine, &id, &["sh", "-c", "echo hi; echo no >&2; exit 3"]).await,
        (3, "hi\n".into(), "no\n".into())
    );
    assert_eq!(exec(&engine, &id, &["hostname"]).await, (0, "web-0\n".into(), String::new()));
    let failed = engine.exec(&id, ExecConfig { command: strings(&["nosuch"]), ..ExecConfig::default() }).await;
    let text = failed.unwrap_err().to_string();
    assert!(text.ends_with(r#"exec: "nosuch": executable file not found in $PATH: unknown"#), "{text}");
}
