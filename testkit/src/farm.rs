//! A real farm: coordinator, cache and workers as processes of their own, on loopback, with data of
//! their own, and gone when the test is over.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    thread,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{network::Network, program::grange, wait};

/// What farm to start.
#[derive(Clone, Debug)]
pub struct FarmPlan {
    /// How many workers.
    pub workers: u32,
    /// How many phases each runs at once.
    pub slots: u32,
    /// The isolation level; `None`: the best that this machine can.
    pub isolation: Option<&'static str>,
    /// What else `grange.toml` says.
    pub settings: String,
    /// Where the coordinator keeps its data; `None`: with everything else.
    pub coordinator_directory: Option<PathBuf>,
    /// Where the cache keeps its store; `None`: with everything else.
    pub cache_directory: Option<PathBuf>,
    /// Where the cache listens; `None`: on a port that is free.
    pub cache_listen: Option<SocketAddr>,
    /// A library that is loaded into the cache in front of all others, in place of what the system gives;
    /// `None`: none.
    pub cache_preload: Option<PathBuf>,
    /// Variables that the cache has besides those of the test.
    pub cache_environment: Vec<(&'static str, String)>,
    /// The hosts that the services run on: `coordinator`, `cache`, `worker-0` and so on, and `client`
    /// for people; `None`: all on this machine's loopback.
    pub network: Option<Arc<Network>>,
}

impl Default for FarmPlan {
    fn default() -> Self {
        Self {
            workers: 1,
            slots: 1,
            isolation: None,
            settings: String::new(),
            coordinator_directory: None,
            cache_directory: None,
            cache_listen: None,
            cache_preload: None,
            cache_environment: Vec::new(),
            network: None,
        }
    }
}

/// A running farm.
#[derive(Debug)]
pub struct Farm {
    directory: TempDir,
    /// The coordinator's address.
    pub address: String,
    /// The cache's address.
    pub cache_address: String,
    plan: FarmPlan,
    coordinator: Option<Service>,
    cache: Option<Service>,
    workers: Vec<Option<Service>>,
}

/// A process of the farm; killed when dropped.
#[derive(Debug)]
struct Service {
    child: Child,
}

impl Drop for Service {
    fn drop(&mut self) {
        // Both fail only if the process has ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Farm {
    /// Starts a farm and waits until all workers have joined.
    ///
    /// # Panics
    ///
    /// If a part does not start.
    pub fn start(plan: FarmPlan) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("grange-farm-")
            .tempdir()
            .unwrap();
        fs::write(directory.path().join("grange.toml"), &plan.settings).unwrap();
        let mut farm = Self {
            directory,
            address: String::new(),
            cache_address: String::new(),
            plan,
            coordinator: None,
            cache: None,
            workers: Vec::new(),
        };
        farm.start_coordinator();
        farm.start_cache();
        for index in 0..farm.plan.workers {
            farm.workers.push(None);
            farm.start_worker(index);
        }
        farm.wait_for_workers(farm.plan.workers as usize);
        farm
    }

    /// Where the farm and its clients keep their data.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Where the cache keeps its data.
    pub fn cache_directory(&self) -> PathBuf {
        let configured = self.plan.cache_directory.clone();
        configured.unwrap_or_else(|| self.directory.path().join("cache"))
    }

    /// Where the worker with this index keeps its data.
    pub fn worker_directory(&self, index: u32) -> PathBuf {
        self.directory.path().join(format!("worker-{index}"))
    }

    /// Where the cache keeps chunks and entries, but not who it is.
    pub fn cache_store(&self) -> PathBuf {
        let configured = self.plan.cache_directory.clone();
        let data = configured.unwrap_or_else(|| self.directory.path().join("cache"));
        data.join("store")
    }

    /// Where a service's output goes.
    fn log_file(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.log"))
    }

    /// The process id of the coordinator.
    pub fn coordinator_pid(&self) -> u32 {
        self.coordinator
            .as_ref()
            .expect("the coordinator runs")
            .child
            .id()
    }

    /// The process id of the cache.
    pub fn cache_pid(&self) -> u32 {
        self.cache.as_ref().expect("the cache runs").child.id()
    }

    /// The process id of a worker.
    pub fn worker_pid(&self, index: u32) -> u32 {
        let worker = self.workers[index as usize].as_ref();
        worker.expect("the worker runs").child.id()
    }

    /// Starts the coordinator, at the address that it had before if it ran before.
    pub fn start_coordinator(&mut self) {
        let listen = if self.address.is_empty() {
            self.listen("coordinator")
        } else {
            self.address.clone()
        };
        let configured = self.plan.coordinator_directory.clone();
        let data = configured.unwrap_or_else(|| self.directory.path().join("farm"));
        let mut command = self.grange_on("coordinator", &["coordinator", "--listen", &listen]);
        command.arg("--data").arg(&data);
        let log = self.log_file("coordinator");
        let (service, line) = start(command, &log, "listens on ");
        self.address = line;
        self.coordinator = Some(service);
    }

    /// Starts the cache.
    pub fn start_cache(&mut self) {
        self.start_cache_with(&[]);
    }

    /// Starts the cache with more arguments.
    pub fn start_cache_with(&mut self, arguments: &[&str]) {
        let data = self.cache_directory();
        let listen = match self.plan.cache_listen {
            Some(address) => address.to_string(),
            None => self.listen("cache"),
        };
        let mut command = self.grange_on("cache", &["cache", "serve", "--listen", &listen]);
        command.args(arguments);
        command
            .arg("--join")
            .arg(&self.address)
            .arg("--data")
            .arg(&data);
        if !data.exists() {
            command.arg("--token").arg(self.token("cache"));
        }
        command.envs(self.plan.cache_environment.clone());
        if let Some(library) = &self.plan.cache_preload {
            command.env("LD_PRELOAD", library);
        }
        let log = self.log_file("cache");
        let (service, address) = start(command, &log, "reached at ");
        self.cache_address = address;
        self.cache = Some(service);
    }

    /// Starts the worker with this index; its name is `worker-INDEX`.
    pub fn start_worker(&mut self, index: u32) {
        self.start_worker_with(index, &[]);
    }

    /// As [`start_worker`](Self::start_worker), with more arguments; the index may be a new one.
    pub fn start_worker_with(&mut self, index: u32, more: &[&str]) {
        let data = self.worker_directory(index);
        let name = format!("worker-{index}");
        let arguments = ["worker", "--name", &name, "--join", &self.address];
        let mut command = self.grange_on(&name, &arguments);
        command.arg("--slots").arg(self.plan.slots.to_string());
        command.arg("--data").arg(&data);
        if let Some(isolation) = self.plan.isolation {
            command.arg("--isolation").arg(isolation);
        }
        if !data.exists() {
            command.arg("--token").arg(self.token("worker"));
        }
        command.args(more);
        let child = logged(command, &self.log_file(&name));
        let count = self.workers.len().max(index as usize + 1);
        self.workers.resize_with(count, || None);
        self.workers[index as usize] = Some(Service { child });
    }

    /// Ends the coordinator at once, as `kill -9` does.
    pub fn kill_coordinator(&mut self) {
        self.coordinator = None;
    }

    /// Ends the cache at once.
    pub fn kill_cache(&mut self) {
        self.cache = None;
    }

    /// Ends a worker at once.
    pub fn kill_worker(&mut self, index: u32) {
        self.workers[index as usize] = None;
    }

    /// Waits until exactly so many workers are there.
    ///
    /// # Panics
    ///
    /// If they do not come.
    pub fn wait_for_workers(&self, count: usize) {
        wait::until_true("the workers have joined", || {
            self.json(&["workers"]).len() == count
        });
    }

    /// A join token for a role.
    pub fn token(&self, role: &str) -> String {
        let output = self
            .client(&["token", "create", "--role", role])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// A `grange` command of this farm's own user, without a farm named.
    pub fn grange(&self, arguments: &[&str]) -> Command {
        self.grange_on("client", arguments)
    }

    /// Where the service on a host listens: on a port that is free.
    fn listen(&self, host: &str) -> String {
        let network = self.plan.network.as_ref();
        let address = network.map_or(Ipv4Addr::LOCALHOST, |network| network.address(host));
        format!("{address}:0")
    }

    fn grange_on(&self, host: &str, arguments: &[&str]) -> Command {
        let mut command = match &self.plan.network {
            Some(network) => network.command(host, &grange()),
            None => Command::new(grange()),
        };
        command
            .args(arguments)
            .current_dir(self.directory.path())
            .env_remove("GRANGE_FARM")
            .env_remove("GRANGE_LOG")
            .env_remove("GRANGE_TOKEN")
            .env("XDG_CACHE_HOME", self.directory.path().join("cache"))
            .env("XDG_DATA_HOME", self.directory.path().join("data"))
            .env("XDG_CONFIG_HOME", self.directory.path().join("config"))
            .stdin(Stdio::null());
        command
    }

    /// A `grange` command of an administrator of this farm.
    pub fn client(&self, arguments: &[&str]) -> Command {
        let mut command = self.grange(arguments);
        command.env("GRANGE_FARM", &self.address);
        command
    }

    /// Runs a command with `--json`, and gives what each line of its output says.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.client(arguments).arg("--json").output().unwrap();
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Builds a source tree to its end.
    pub fn build(&self, source: &Path, arguments: &[&str]) -> Built {
        let mut command = self.client(&["build"]);
        command.arg(source).args(arguments);
        Built::from(command.output().unwrap())
    }

    /// Submits a source tree, and gives the build's id.
    ///
    /// # Panics
    ///
    /// If it is not taken.
    pub fn submit(&self, source: &Path, arguments: &[&str]) -> String {
        let built = self.build(source, &[&["--detach"], arguments].concat());
        assert_eq!(built.code, 0, "{}", built.stderr);
        built.stdout.trim().to_owned()
    }

    /// How a build stands, as `status --json` says.
    pub fn status(&self, build: &str) -> Value {
        self.json(&["status", build]).remove(0)
    }

    /// Waits until a build has ended, and gives how it stands then.
    ///
    /// # Panics
    ///
    /// If it does not end.
    pub fn wait_for_end(&self, build: &str) -> Value {
        wait::until("the build has ended", || {
            let status = self.status(build);
            (!status["summary"]["ended"].is_null()).then_some(status)
        })
    }

    /// The log of a build.
    pub fn log(&self, build: &str) -> String {
        let output = self.client(&["logs", build]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// What a `grange` command did.
#[derive(Debug)]
pub struct Built {
    /// Its exit code.
    pub code: i32,
    /// What it printed on standard output.
    pub stdout: String,
    /// What it printed on standard error.
    pub stderr: String,
}

impl Built {
    /// The lines that the commands of a build printed, without the farm's own.
    pub fn printed(&self) -> Vec<&str> {
        let lines = self.stdout.lines();
        lines
            .filter(|line| !line.starts_with("[Container] "))
            .collect()
    }
}

impl From<Output> for Built {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Starts a service whose output goes to the end of a file.
fn logged(mut command: Command, log: &Path) -> Child {
    let file = || {
        let mut options = fs::OpenOptions::new();
        options.create(true).append(true).open(log).unwrap()
    };
    command.stdout(file()).stderr(file()).spawn().unwrap()
}

/// Starts a service and waits for the word after `sign` on a line that it writes to `log`.
fn start(command: Command, log: &Path, sign: &str) -> (Service, String) {
    let before = fs::metadata(log).map_or(0, |metadata| metadata.len());
    let mut service = Service {
        child: logged(command, log),
    };
    let word = wait::until("the service is up", || {
        let text = fs::read(log).unwrap();
        let new = text.get(usize::try_from(before).unwrap()..)?;
        let new = String::from_utf8_lossy(new);
        // A line that is still being written may lack the end of the word.
        let lines = new
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        let mut words = lines.filter_map(|line| line.split_once(sign));
        if let Some((_, rest)) = words.next() {
            return Some(
                rest.split_whitespace()
                    .next()
                    .unwrap_or_default()
                    .to_owned(),
            );
        }
        let ended = service.child.try_wait().unwrap();
        assert!(
            ended.is_none(),
            "{} ended before it was up:\n{new}",
            log.display()
        );
        None
    });
    (service, word)
}

/// How many lines of each service's log are shown when a test fails.
const LOG_LINES_SHOWN: usize = 20;

impl Drop for Farm {
    /// Who reads why a test failed wants to know what its farm said.
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        for entry in fs::read_dir(self.directory.path())
            .into_iter()
            .flatten()
            .flatten()
        {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                let text = fs::read(&path).unwrap_or_default();
                let text = String::from_utf8_lossy(&text);
                let lines: Vec<_> = text.lines().collect();
                let shown = lines.len().saturating_sub(LOG_LINES_SHOWN);
                crate::tell(&format!(
                    "== {}\n{}",
                    path.display(),
                    lines[shown..].join("\n")
                ));
            }
        }
    }
}
