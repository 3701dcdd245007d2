//! An engine that keeps state and runs nothing. What a container does is said by its command:
//! `run` until it is stopped, `exit N` at once, `stubborn` until SIGKILL, `broken` cannot be started, `say TEXT` logs a line
//! and goes on running.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use stead_runtime::*;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, broadcast, oneshot};

#[derive(Debug)]
pub struct FakeEngine {
    state: Mutex<State>,
    events: broadcast::Sender<EngineEvent>,
    killed: Notify,
}

#[derive(Debug, Default)]
struct State {
    images: BTreeMap<String, Image>,
    /// What registries have.
    remote: BTreeMap<String, Image>,
    sandboxes: BTreeMap<String, Sandbox>,
    containers: BTreeMap<String, (Container, ContainerConfig)>,
    /// Commands that exec knows, with their exit codes.
    commands: BTreeMap<String, i32>,
    /// What was asked for, in order.
    log: Vec<String>,
    ids: u32,
    clock: i64,
}

impl FakeEngine {
    pub fn new() -> Arc<Self> {
        let engine = FakeEngine { state: Mutex::default(), events: broadcast::channel(1024).0, killed: Notify::new() };
        engine.state.lock().images.insert("i:1".to_owned(), image("i:1"));
        Arc::new(engine)
    }

    pub fn publish(&self, reference: &str) {
        self.state.lock().remote.insert(reference.to_owned(), image(reference));
    }

    pub fn command(&self, command: &str, code: i32) {
        self.state.lock().commands.insert(command.to_owned(), code);
    }

    pub fn log(&self) -> Vec<String> {
        self.state.lock().log.clone()
    }

    /// The newest container of that name and its configuration.
    pub fn container(&self, name: &str) -> Option<(Container, ContainerConfig)> {
        let state = self.state.lock();
        state.containers.values().filter(|(one, _)| one.name == name).max_by_key(|(one, _)| one.attempt).cloned()
    }

    /// The newest container of that name ends.
    pub fn exit(&self, name: &str, code: i32) {
        let (container, _) = self.container(name).expect("a container");
        self.finish(&container.id, code);
    }

    fn finish(&self, id: &str, code: i32) {
        let mut state = self.state.lock();
        let now = state.now();
        let Some((container, _)) = state.containers.get_mut(id) else { return };
        let ContainerState::Running { started_at_unix_nanos, .. } = container.state else { return };
        container.state = ContainerState::Exited(Exit {
            started_at_unix_nanos,
            finished_at_unix_nanos: now,
            code,
            signal: None,
            oom_killed: false,
            start_error: None,
        });
        let event = EngineEvent::ContainerExited { sandbox: container.sandbox.clone(), container: id.to_owned() };
        drop(state);
        let _ = self.events.send(event);
        self.killed.notify_waiters();
    }

    fn is_running(&self, id: &str) -> bool {
        let state = self.state.lock();
        state.containers.get(id).is_some_and(|(one, _)| matches!(one.state, ContainerState::Running { .. }))
    }
}

impl State {
    fn now(&mut self) -> i64 {
        let now = jiff::Timestamp::now().as_nanosecond();
        self.clock = i64::try_from(now).expect("this century");
        self.clock
    }

    fn id(&mut self, prefix: &str) -> String {
        self.ids += 1;
        format!("{prefix}{}", self.ids)
    }
}

fn image(reference: &str) -> Image {
    Image {
        id: format!("sha256:{reference}"),
        references: vec![format!("docker.io/library/{reference}")],
        digests: vec![format!("docker.io/library/i@sha256:{reference}")],
        size_bytes: 1234,
        user: String::new(),
    }
}

fn write_log(sandbox: &Sandbox, config: &ContainerConfig, text: &str) {
    let path = sandbox.config.log_directory.join(&config.log_path);
    std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).expect("opened");
    writeln!(file, "{} stdout F {text}", jiff::Timestamp::now()).expect("written");
}

#[async_trait]
impl Engine for FakeEngine {
    fn version(&self) -> String {
        "fake://1.0".to_owned()
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>, EngineError> {
        let state = self.state.lock();
        let by_id = state.images.values().find(|image| image.id == reference);
        Ok(state.images.get(reference).or(by_id).cloned())
    }

    async fn pull(&self, reference: &str, _: Option<RegistryAuth>) -> Result<Image, PullError> {
        let mut state = self.state.lock();
        state.log.push(format!("pull {reference}"));
        let found = state.remote.get(reference).cloned();
        let image = found.ok_or_else(|| PullError::NotFound(format!("{reference}: not found")))?;
        state.images.insert(reference.to_owned(), image.clone());
        Ok(image)
    }

    async fn import(&self, _: std::path::PathBuf) -> Result<Vec<Image>, EngineError> {
        Err(EngineError::Invalid("nothing to import".to_owned()))
    }

    async fn images(&self) -> Result<Vec<Image>, EngineError> {
        Ok(self.state.lock().images.values().cloned().collect())
    }

    async fn remove_image(&self, reference: &str) -> Result<(), EngineError> {
        self.state.lock().images.remove(reference);
        Ok(())
    }

    async fn run_sandbox(&self, config: SandboxConfig) -> Result<SandboxId, EngineError> {
        let mut state = self.state.lock();
        let id = state.id("s");
        let created_at_unix_nanos = state.now();
        state.log.push("sandbox".to_owned());
        let sandbox = Sandbox { id: id.clone(), state: SandboxState::Ready, created_at_unix_nanos, config };
        state.sandboxes.insert(id.clone(), sandbox);
        Ok(id)
    }

    async fn stop_sandbox(&self, id: &str) -> Result<(), EngineError> {
        let ids: Vec<String> = {
            let mut state = self.state.lock();
            state.log.push("stop sandbox".to_owned());
            if let Some(sandbox) = state.sandboxes.get_mut(id) {
                sandbox.state = SandboxState::Stopped;
            }
            let inside = state.containers.values().filter(|(one, _)| one.sandbox == id);
            inside.map(|(one, _)| one.id.clone()).collect()
        };
        ids.iter().for_each(|container| self.finish(container, 137));
        let _ = self.events.send(EngineEvent::SandboxStopped { sandbox: id.to_owned() });
        Ok(())
    }

    async fn remove_sandbox(&self, id: &str) -> Result<(), EngineError> {
        let mut state = self.state.lock();
        state.log.push("remove sandbox".to_owned());
        state.sandboxes.remove(id);
        state.containers.retain(|_, (one, _)| one.sandbox != id);
        Ok(())
    }

    async fn sandboxes(&self) -> Result<Vec<Sandbox>, EngineError> {
        Ok(self.state.lock().sandboxes.values().cloned().collect())
    }

    async fn create_container(&self, sandbox: &str, config: ContainerConfig) -> Result<ContainerId, EngineError> {
        let mut state = self.state.lock();
        let id = state.id("c");
        state.log.push(format!("create {}#{}", config.name, config.attempt));
        let container = Container {
            id: id.clone(),
            sandbox: sandbox.to_owned(),
            name: config.name.clone(),
            attempt: config.attempt,
            labels: config.labels.clone(),
            image: config.image.clone(),
            image_id: config.image.clone(),
            state: ContainerState::Created,
            created_at_unix_nanos: 0,
            log_path: config.log_path.clone(),
            termination_message_path: config.termination_message_path.clone(),
        };
        state.containers.insert(id.clone(), (container, config));
        Ok(id)
    }

    async fn start_container(&self, id: &str) -> Result<(), EngineError> {
        let (sandbox, config) = {
            let mut state = self.state.lock();
            let now = state.now();
            let (container, config) = state.containers.get_mut(id).ok_or(EngineError::NotFound(id.to_owned()))?;
            let broken = config.command.first().is_some_and(|word| word == "broken");
            container.state = if broken {
                let start_error = Some("exec: \"broken\": executable file not found in $PATH: unknown".to_owned());
                ContainerState::Exited(Exit {
                    started_at_unix_nanos: 0,
                    finished_at_unix_nanos: now,
                    code: 128,
                    signal: None,
                    oom_killed: false,
                    start_error,
                })
            } else {
                ContainerState::Running { started_at_unix_nanos: now, pid: 1 }
            };
            let (sandbox, config) = (container.sandbox.clone(), config.clone());
            if broken {
                return Err(EngineError::Failed(
                    "exec: \"broken\": executable file not found in $PATH: unknown".to_owned(),
                ));
            }
            (state.sandboxes[&sandbox].clone(), config)
        };
        let _ =
            self.events.send(EngineEvent::ContainerStarted { sandbox: sandbox.id.clone(), container: id.to_owned() });
        match config.command.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["exit", code] => self.finish(id, code.parse().expect("a code")),
            ["say", text] => write_log(&sandbox, &config, text),
            ["die", message] => {
                std::fs::write(config.termination_message_path.expect("a path"), message).expect("written");
                self.finish(id, 1);
            }
            _ => {}
        }
        Ok(())
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), EngineError> {
        let stubborn = {
            let mut state = self.state.lock();
            let Some((container, config)) = state.containers.get(id).cloned() else { return Ok(()) };
            state.log.push(format!("stop {} {}s", container.name, grace.as_secs()));
            config.command.first().is_some_and(|word| word == "stubborn")
        };
        if stubborn {
            let killed = async {
                while self.is_running(id) {
                    self.killed.notified().await;
                }
            };
            let _ = tokio::time::timeout(grace, killed).await;
        }
        self.finish(id, if stubborn { 137 } else { 143 });
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<(), EngineError> {
        self.state.lock().containers.remove(id);
        Ok(())
    }

    async fn containers(&self) -> Result<Vec<Container>, EngineError> {
        Ok(self.state.lock().containers.values().map(|(one, _)| one.clone()).collect())
    }

    async fn exec(&self, _: &str, config: ExecConfig) -> Result<Session, EngineError> {
        let command = config.command.join(" ");
        let mut state = self.state.lock();
        state.log.push(format!("exec {command}"));
        let code = state.commands.get(&command).copied().unwrap_or(127);
        let (exit, ended) = oneshot::channel();
        let (stdout, mut ours) = tokio::io::duplex(1024);
        tokio::spawn(async move {
            let _ = ours.write_all(format!("ran {command}").as_bytes()).await;
            drop(ours);
            let _ = exit.send(code);
        });
        Ok(Session { stdin: None, stdout: Some(Box::new(stdout)), stderr: None, resize: None, exit: ended, kill: None })
    }

    async fn attach(&self, id: &str, _: AttachConfig) -> Result<Session, EngineError> {
        Err(EngineError::NotFound(id.to_owned()))
    }

    async fn stats(&self, _: &str) -> Result<Stats, EngineError> {
        Ok(Stats { cpu_usage_nanos: 1, memory_usage_bytes: 2, memory_working_set_bytes: 3, ..Stats::default() })
    }

    async fn sandbox_stats(&self, _: &str) -> Result<Stats, EngineError> {
        Ok(Stats { cpu_usage_nanos: 1, memory_usage_bytes: 2, memory_working_set_bytes: 3, ..Stats::default() })
    }

    fn events(&self) -> broadcast::Receiver<EngineEvent> {
        self.events.subscribe()
    }
}
