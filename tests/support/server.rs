//! Real MongoDB servers that live no longer than the test process, however that ends.
//!
//! A small shell starts each server, and reads a pipe that the test process holds. When the pipe
//! closes, whether by `Drop`, a panic or SIGKILL, the shell kills the server and removes its
//! directory.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bson::{Document, doc};
use mongodb::Client;
use mongodb::options::ClientOptions;

/// How long a server may take to start, to elect a primary, or to stop, on a machine that is busy
/// with other tests.
const PATIENCE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(20);

/// The shell that watches a server. Its arguments are the directory and the command. Each line of
/// its input is the name of a signal to send, or `keep`: keep the directory. The server's file
/// descriptor 3 is the pipe that closes when it ends.
const WATCHDOG: &str = r#"
dir=$1; shift
"$@" 3>&1 >>"$dir/output" 2>&1 </dev/null &
server=$!
exec >/dev/null
keep=
while read -r line; do
  case $line in
    keep) keep=1 ;;
    *) kill -s "$line" "$server" 2>/dev/null ;;
  esac
done
kill -s KILL "$server" 2>/dev/null
wait "$server" 2>/dev/null
[ -n "$keep" ] || rm -rf "$dir"
"#;

#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// The version, one of those in `scripts/mongod`. Default: the server that the script finds
    /// without one.
    pub version: Option<String>,
    /// The name of the replica set; `None` for a standalone.
    pub repl_set: Option<String>,
    /// `--setParameter NAME=VALUE`, in addition to `enableTestCommands=1`, which `failCommand`
    /// needs.
    pub parameters: Vec<(String, String)>,
    /// Access control, with the user `root` and the password `secret`.
    pub auth: bool,
    /// `--wiredTigerCacheSizeGB`. Default: 0.25.
    pub cache_gb: Option<f64>,
    /// Any other arguments of mongod.
    pub extra_args: Vec<String>,
}

/// A running `mongod`, or one that was killed or stopped and can be restarted. Dropping it removes
/// it and its data.
pub struct Server {
    options: ServerOptions,
    port: u16,
    dir: PathBuf,
    process: Option<Process>,
}

impl Server {
    pub async fn standalone() -> Self {
        Self::start(ServerOptions::default()).await
    }

    /// A standalone of this version.
    pub async fn of_version(version: &str) -> Self {
        Self::start(ServerOptions { version: Some(version.to_owned()), ..ServerOptions::default() }).await
    }

    /// A replica set of one, writable when this returns.
    pub async fn replica_set(name: &str) -> Self {
        Self::start(ServerOptions { repl_set: Some(name.to_owned()), ..ServerOptions::default() }).await
    }

    /// A replica set of one without compression on the wire, so that a narrow link also delays
    /// compressible data.
    pub async fn uncompressed(name: &str) -> Self {
        let extra_args = ["--networkMessageCompressors", "disabled"].map(str::to_owned).to_vec();
        Self::start(ServerOptions { repl_set: Some(name.to_owned()), extra_args, ..ServerOptions::default() }).await
    }

    /// Starts it. A replica set is initiated with this as its only member, and is writable when
    /// this returns.
    pub async fn start(options: ServerOptions) -> Self {
        let server = Self::start_uninitiated(options).await;
        if let Some(name) = &server.options.repl_set {
            server.initiate(name, &[server.port]).await;
        }
        server.wait_writable().await;
        if server.options.auth {
            server.create_root().await;
        }
        server
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The connection string for this one server, whether or not it belongs to a set.
    pub fn uri(&self) -> String {
        self.uri_through(self.port)
    }

    /// The same through another port of this machine, for example a proxy's.
    pub fn uri_through(&self, port: u16) -> String {
        let (user, source) = if self.options.auth { ("root:secret@", "&authSource=admin") } else { ("", "") };
        format!("mongodb://{user}127.0.0.1:{port}/?directConnection=true{source}")
    }

    pub async fn client(&self) -> Client {
        Client::with_uri_str(self.uri()).await.unwrap()
    }

    pub async fn admin(&self, command: Document) -> mongodb::error::Result<Document> {
        self.client().await.database("admin").run_command(command).await
    }

    /// Makes commands fail as the server itself would, with its fail point `failCommand`. `mode` is
    /// `"alwaysOn"`, `"off"` or `{times: n}`. `data` has `failCommands`, and `errorCode`,
    /// `closeConnection` or `blockConnection`. Returns how many commands failed before.
    pub async fn fail_command(&self, mode: impl Into<bson::Bson>, data: Document) -> i64 {
        let set = doc! {"configureFailPoint": "failCommand", "mode": mode.into(), "data": data};
        let reply = self.admin(set).await.unwrap();
        reply.get_i32("count").map_or_else(|_| reply.get_i64("count").unwrap(), i64::from)
    }

    /// Delays each of these commands if the program sends it.
    pub async fn slow_down(&self, commands: &[&str], milliseconds: i32) {
        let data = doc! {"failCommands": commands, "appName": "bsonvault", "blockConnection": true, "blockTimeMS": milliseconds};
        self.fail_command("alwaysOn", data).await;
    }

    /// Ends all failures and delays. Returns how many there were.
    pub async fn fail_no_more(&self) -> i64 {
        self.fail_command("off", doc! {"failCommands": ["ping"], "errorCode": 1}).await
    }

    /// The directory of its data.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub fn is_running(&self) -> bool {
        self.process.as_ref().is_some_and(|p| !p.has_ended())
    }

    /// Ends it as a power cut would. The data stays for [`Server::restart`].
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.end(After::KeepDirectory);
        }
    }

    /// Shuts it down cleanly. The data stays for [`Server::restart`].
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal("TERM");
            process.wait_ended();
            process.end(After::KeepDirectory);
        }
    }

    /// Pauses its process, so that connections hang. [`Server::resume`] continues it.
    pub fn pause(&mut self) {
        self.process.as_mut().unwrap().signal("STOP");
    }

    pub fn resume(&mut self) {
        self.process.as_mut().unwrap().signal("CONT");
    }

    /// Restarts a killed or stopped server on the same port with the same data; kills a running one
    /// first. Returns when it answers. For a member of a set, that is before a primary is elected.
    pub async fn restart(&mut self) {
        self.kill();
        self.process = Some(Process::spawn(&self.dir, self.port, &self.options));
        assert!(self.answers().await, "the server did not come back: {}", self.last_output());
        if self.options.repl_set.is_none() {
            self.wait_writable().await;
        }
    }

    /// Makes the primary step down for `seconds`. A replica set of one then elects it again.
    pub async fn step_down(&self, seconds: i32) {
        // The server may close this connection instead of answering.
        let answer = self.admin(doc! {"replSetStepDown": seconds, "secondaryCatchUpPeriodSecs": 0, "force": true}).await;
        if let Err(e) = answer {
            assert!(matches!(*e.kind, mongodb::error::ErrorKind::Io(_)), "the server did not step down: {e}");
        }
    }

    pub async fn wait_writable(&self) {
        let client = self.impatient_client().await;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let hello = client.database("admin").run_command(doc! {"hello": 1}).await;
            if hello.as_ref().is_ok_and(|h| h.get_bool("isWritablePrimary").unwrap_or(false)) {
                return;
            }
            assert!(Instant::now() < deadline, "no writable primary at {}: {hello:?}\n{}", self.host(), self.last_output());
            tokio::time::sleep(POLL).await;
        }
    }

    /// The server's log, for assertions about its requests.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    pub(crate) async fn start_uninitiated(options: ServerOptions) -> Self {
        let mut last = String::new();
        for _ in 0..5 {
            let dir = tempfile::Builder::new().prefix("bsonvault-mongod-").tempdir().unwrap().keep();
            if options.auth && options.repl_set.is_some() {
                let mut key = OpenOptions::new().write(true).create_new(true).mode(0o600).open(dir.join("key")).unwrap();
                key.write_all(b"c2hhcmVkIGJ5IHRoZSBtZW1iZXJzIG9mIGEgdGVzdCBzZXQ=").unwrap();
            }
            let port = free_port();
            let process = Some(Process::spawn(&dir, port, &options));
            let server = Self { options: options.clone(), port, dir, process };
            if server.answers().await {
                return server;
            }
            last = server.last_output(); // usually, another process has taken the port
        }
        panic!("no server would start: {last}");
    }

    pub(crate) async fn initiate(&self, name: &str, ports: &[u16]) {
        let members: Vec<Document> =
            (0_i32..).zip(ports).map(|(i, p)| doc! {"_id": i, "host": format!("127.0.0.1:{p}")}).collect();
        let config = doc! {"_id": name, "members": members, "settings": {"electionTimeoutMillis": 5000}};
        let client = self.impatient_client().await;
        client.database("admin").run_command(doc! {"replSetInitiate": config}).await.unwrap();
    }

    /// Anyone on this machine may do this while there is no user.
    pub(crate) async fn create_root(&self) {
        let client = self.impatient_client().await;
        let user = doc! {"createUser": "root", "pwd": "secret", "roles": ["root"]};
        client.database("admin").run_command(user).await.unwrap();
    }

    async fn answers(&self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline && self.is_running() {
            // If another process has taken the port, ours never listens, and ends.
            let listens = std::fs::read_to_string(self.dir.join("log")).is_ok_and(|log| log.contains("Waiting for connections"));
            if listens && tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
                let client = self.impatient_client().await;
                if client.database("admin").run_command(doc! {"hello": 1}).await.is_ok() && self.is_running() {
                    return true;
                }
            }
            tokio::time::sleep(POLL).await;
        }
        false
    }

    /// A client without a user that gives up soon.
    async fn impatient_client(&self) -> Client {
        let uri = format!("mongodb://127.0.0.1:{}/?directConnection=true", self.port);
        let mut options = ClientOptions::parse(uri).await.unwrap();
        options.server_selection_timeout = Some(Duration::from_secs(5));
        Client::with_options(options).unwrap()
    }

    fn last_output(&self) -> String {
        let of = |name| std::fs::read_to_string(self.dir.join(name)).unwrap_or_default();
        let (output, log) = (of("output"), of("log"));
        let mut lines: Vec<&str> = output.lines().chain(log.lines()).rev().take(15).collect();
        lines.reverse();
        lines.join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        match self.process.take() {
            Some(process) => process.end(After::RemoveDirectory),
            None => _ = std::fs::remove_dir_all(&self.dir),
        }
    }
}

/// A replica set of one, and the URI of a login that may read everything except the oplog.
pub async fn without_oplog(name: &str, parameters: &[(&str, &str)]) -> (Server, String) {
    let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let options = ServerOptions { repl_set: Some(name.to_owned()), auth: true, parameters, ..ServerOptions::default() };
    let server = Server::start(options).await;
    let role = doc! { "createRole": "allButOplog", "roles": ["readAnyDatabase"], "privileges": [
        { "resource": { "cluster": true }, "actions": ["getParameter"] },
    ] };
    server.admin(role).await.unwrap();
    server.admin(doc! { "createUser": "reader", "pwd": "p", "roles": ["allButOplog"] }).await.unwrap();
    let uri = format!("mongodb://reader:p@{}/?directConnection=true&authSource=admin", server.host());
    (server, uri)
}

/// A replica set of several members, each of which can fail.
pub struct ReplicaSet {
    pub name: String,
    pub members: Vec<Server>,
}

impl ReplicaSet {
    /// Starts it. When this returns, there is a primary, and all other members are secondaries in
    /// sync.
    pub async fn start(members: usize) -> Self {
        Self::start_with(members, ServerOptions { repl_set: Some("set".to_owned()), ..ServerOptions::default() }).await
    }

    pub async fn start_with(members: usize, options: ServerOptions) -> Self {
        let name = options.repl_set.clone().expect("a replica set needs a name");
        let servers: Vec<Server> =
            futures::future::join_all((0..members).map(|_| Server::start_uninitiated(options.clone()))).await;
        let ports: Vec<u16> = servers.iter().map(Server::port).collect();
        servers[0].initiate(&name, &ports).await;
        servers[0].wait_writable().await; // the others cannot be elected yet
        if options.auth {
            servers[0].create_root().await;
        }
        let set = Self { name, members: servers };
        set.wait_healthy().await;
        set
    }

    pub fn uri(&self) -> String {
        let hosts: Vec<String> = self.members.iter().map(Server::host).collect();
        let auth = self.members[0].options.auth;
        let (user, source) = if auth { ("root:secret@", "&authSource=admin") } else { ("", "") };
        format!("mongodb://{user}{}/?replicaSet={}{source}", hosts.join(","), self.name)
    }

    pub async fn client(&self) -> Client {
        Client::with_uri_str(self.uri()).await.unwrap()
    }

    /// The index of the present primary; waits for one.
    pub async fn primary(&self) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            for (i, member) in self.members.iter().enumerate().filter(|(_, m)| m.is_running()) {
                let hello = member.impatient_client().await.database("admin").run_command(doc! {"hello": 1}).await;
                if hello.is_ok_and(|h| h.get_bool("isWritablePrimary").unwrap_or(false)) {
                    return i;
                }
            }
            assert!(Instant::now() < deadline, "no primary in {}", self.uri());
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until one running member is the primary, and all others are secondaries.
    pub async fn wait_healthy(&self) {
        let deadline = Instant::now() + PATIENCE;
        for member in self.members.iter().filter(|m| m.is_running()) {
            let client = member.impatient_client().await;
            loop {
                let hello = client.database("admin").run_command(doc! {"hello": 1}).await;
                let serves = |h: &Document| ["isWritablePrimary", "secondary"].iter().any(|k| h.get_bool(k).unwrap_or(false));
                if hello.as_ref().is_ok_and(serves) {
                    break;
                }
                assert!(Instant::now() < deadline, "{} is not in service: {hello:?}\n{}", member.host(), member.last_output());
                tokio::time::sleep(POLL).await;
            }
        }
        self.primary().await;
    }
}

/// A loopback port on which nothing listened a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// The path of the server's executable of this version, or of any version. Found or fetched once
/// per process.
pub fn mongod(version: Option<&str>) -> PathBuf {
    static FOUND: Mutex<BTreeMap<Option<String>, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    let version = version.map(str::to_owned);
    let path = found.entry(version).or_insert_with_key(|version| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/mongod");
        let output = Command::new(&script).args(version).stderr(Stdio::inherit()).output().unwrap();
        let hint = if version.is_some() { "; BSONVAULT_MATRIX=none leaves out what needs it" } else { "" };
        let wanted = version.as_deref().unwrap_or_default();
        assert!(output.status.success(), "{} found no server {wanted}{hint}", script.display());
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end())
    });
    path.clone()
}

enum After {
    KeepDirectory,
    RemoveDirectory,
}

/// A server and the shell that watches it.
struct Process {
    shell: Child,
    orders: Option<ChildStdin>,
    ended: JoinHandle<()>,
}

impl Process {
    fn spawn(dir: &Path, port: u16, options: &ServerOptions) -> Self {
        std::fs::create_dir_all(dir.join("data")).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", WATCHDOG, "watchdog"]).arg(dir).arg(mongod(options.version.as_deref()));
        command.args(["--bind_ip", "127.0.0.1", "--port", &port.to_string(), "--nounixsocket", "--logappend"]);
        command.arg("--dbpath").arg(dir.join("data")).arg("--logpath").arg(dir.join("log"));
        command.args(["--wiredTigerCacheSizeGB", &options.cache_gb.unwrap_or(0.25).to_string()]);
        command.args(["--setParameter", "enableTestCommands=1"]);
        command.args(["--setParameter", "diagnosticDataCollectionEnabled=false"]);
        for (name, value) in &options.parameters {
            command.args(["--setParameter", &format!("{name}={value}")]);
        }
        if let Some(name) = &options.repl_set {
            command.args(["--replSet", name]);
        }
        if options.auth {
            match &options.repl_set {
                Some(_) => command.arg("--keyFile").arg(dir.join("key")),
                None => command.arg("--auth"),
            };
        }
        command.args(&options.extra_args);
        // In its own process group, so that an interrupt of the tests closes the pipe before it
        // reaches the shell.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(dir.join("shell")).unwrap());
        let mut shell = command.spawn().unwrap();
        let orders = shell.stdin.take();
        let mut alive = BufReader::new(shell.stdout.take().unwrap());
        let ended =
            std::thread::spawn(
                move || while alive.fill_buf().is_ok_and(|b| !b.is_empty()) && alive.read(&mut [0; 64]).is_ok() {},
            );
        Self { shell, orders, ended }
    }

    fn has_ended(&self) -> bool {
        self.ended.is_finished()
    }

    fn wait_ended(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.has_ended() && Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
    }

    fn signal(&mut self, name: &str) {
        writeln!(self.orders.as_mut().unwrap(), "{name}").unwrap();
    }

    fn end(mut self, after: After) {
        if matches!(after, After::KeepDirectory) {
            self.signal("keep");
        }
        drop(self.orders.take());
        _ = self.shell.wait();
    }
}
