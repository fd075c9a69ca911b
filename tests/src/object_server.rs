//! A real object store for the tests: SeaweedFS, which scripts/setup installs. One for all tests of a process.
//!
//! It checks signatures, puts parts together and keeps objects on a disk, as the stores do that people run. Tests look
//! at what it keeps, and damage it, through its file interface, which knows no signatures.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{database::target_folder, deadline::wait_until};

/// Who may ask it.
pub const ACCESS_KEY_ID: &str = "flowstonetest";
/// And how they sign.
pub const SECRET_ACCESS_KEY: &str = "hunter2hunter2hunter2";

/// A running server.
#[derive(Debug)]
pub struct ObjectServer {
    ports: Ports,
    /// Its guard ends with this process, and ends the server.
    _guard: Child,
}

/// One bucket of its own.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    ports: Ports,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    s3: u16,
    files: u16,
}

impl Bucket {
    /// A new one, in the server that the tests of this process share.
    pub fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let ports = server().ports;
        let bucket = Self { name: format!("bucket-{}", NUMBER.fetch_add(1, Ordering::SeqCst)), ports };
        let (status, said) = ask(ports.files, "POST", &format!("/buckets/{}/", bucket.name), b"");
        assert!(matches!(status, 200..300), "{status} {}", String::from_utf8_lossy(&said));
        bucket
    }

    /// The address of the server's S3 interface.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address())
    }

    /// The same for a relay.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.s3)
    }

    /// What the command is told to use it, with its blobs under `prefix`.
    pub fn variables(&self, endpoint: &str) -> [(String, String); 4] {
        [
            ("FLOWSTONE_BLOBS", format!("s3://{}/prefix", self.name)),
            ("AWS_ENDPOINT_URL", endpoint.to_owned()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY.to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
    }

    /// Keys of what is in it, sorted; parts of unfinished uploads among them.
    pub fn keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            let path = format!("/buckets/{}/{folder}?limit=10000", self.name);
            let (status, listed) = ask(self.ports.files, "GET", &path, b"");
            assert!(status == 200, "{status} {}", String::from_utf8_lossy(&listed));
            let listed: serde_json::Value = serde_json::from_slice(&listed).expect("a listing is JSON");
            for entry in listed["Entries"].as_array().into_iter().flatten() {
                let name = entry["FullPath"].as_str().and_then(|path| path.rsplit('/').next()).expect("it has a path");
                // The mode of a folder has the bit that Go gives it.
                match entry["Mode"].as_u64().is_some_and(|mode| mode & (1 << 31) != 0) {
                    true => folders.push(format!("{folder}{name}/")),
                    false => keys.push(format!("{folder}{name}")),
                }
            }
        }
        keys.sort();
        keys
    }

    /// An object's bytes.
    pub fn get(&self, key: &str) -> Vec<u8> {
        let (status, bytes) = ask(self.ports.files, "GET", &format!("/buckets/{}/{key}", self.name), b"");
        assert_eq!(status, 200, "{key}");
        bytes
    }

    /// Replaces an object's bytes behind everybody's back.
    pub fn put(&self, key: &str, bytes: &[u8]) {
        let (status, _) = ask(self.ports.files, "PUT", &format!("/buckets/{}/{key}", self.name), bytes);
        assert!(matches!(status, 200..300), "{status}");
    }

    /// Removes an object, or everything below a key that ends with a slash.
    pub fn remove(&self, key: &str) {
        let path = format!("/buckets/{}/{key}?recursive=true", self.name);
        let (status, _) = ask(self.ports.files, "DELETE", &path, b"");
        assert!(matches!(status, 200..300), "{status}");
    }
}

impl Default for Bucket {
    fn default() -> Self {
        Self::new()
    }
}

fn server() -> &'static ObjectServer {
    static SERVER: OnceLock<ObjectServer> = OnceLock::new();
    SERVER.get_or_init(start)
}

fn start() -> ObjectServer {
    let program = target_folder().with_file_name("tools").join("object-store/bin/weed");
    assert!(program.is_file(), "{} is missing: run scripts/setup", program.display());
    let folder = tempfile::Builder::new().prefix("flowstone-objects-").tempdir().expect("/tmp is writable").keep();
    let identities = serde_json::json!({"identities": [{
        "name": "flowstone",
        "credentials": [{"accessKey": ACCESS_KEY_ID, "secretKey": SECRET_ACCESS_KEY}],
        "actions": ["Read", "Write", "List"],
    }]});
    let config = folder.join("identities.json");
    std::fs::write(&config, identities.to_string()).expect("the folder is new");
    // All at once, so that they differ; each but those of S3 and files is of no interest.
    let listeners = [(); 8].map(|()| TcpListener::bind("127.0.0.1:0").expect("there are free ports"));
    let [master, master_rpc, volume, volume_rpc, files, files_rpc, s3, s3_rpc] =
        listeners.each_ref().map(|listener| listener.local_addr().expect("it is bound").port());
    drop(listeners);
    let mut guard = Command::new("sh");
    // Ends with the pipe that this process holds, however the process ends.
    guard.arg("-c").arg(
        r#"folder=$1; shift; "$@" >"$folder/log" 2>&1 & read -r _; kill -9 $!; wait $! 2>/dev/null; rm -rf "$folder""#,
    );
    guard.arg("sh").arg(&folder).arg(program).args([
        "-logtostderr=true",
        "server",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
    ]);
    guard.arg(format!("-dir={}", folder.display()));
    guard.arg(format!("-s3.config={}", config.display()));
    for (name, port) in [
        ("master.port", master),
        ("master.port.grpc", master_rpc),
        ("volume.port", volume),
        ("volume.port.grpc", volume_rpc),
        ("filer.port", files),
        ("filer.port.grpc", files_rpc),
        ("s3.port", s3),
        ("s3.port.grpc", s3_rpc),
        ("s3.port.iceberg", 0),
        ("s3.port.lance", 0),
    ] {
        guard.arg(format!("-{name}={port}"));
    }
    guard.args(["-filer", "-s3", "-s3.iam=false", "-s3.autoCreateBucket=false"]);
    guard.args(["-master.volumeSizeLimitMB=1024", "-volume.max=1000", "-volume.minFreeSpace=1MiB"]);
    // A file for each bucket instead of seven.
    guard.env("WEED_MASTER_VOLUME_GROWTH_COPY_1", "1");
    let guard = guard.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("there is a shell");
    wait_until("the object store answers", || {
        TcpStream::connect(("127.0.0.1", s3)).is_ok() && ask(s3, "GET", "/", b"").0 == 403
    });
    ObjectServer { ports: Ports { s3, files }, _guard: guard }
}

/// A request of the simplest kind: status 0 when there is no answer.
fn ask(port: u16, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let exchange = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        let head = format!(
            "{method} {path} HTTP/1.0\r\nhost: 127.0.0.1:{port}\r\naccept: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = exchange().unwrap_or_default();
    let head = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap_or(answer.len());
    let status = std::str::from_utf8(&answer[..head]).ok().and_then(|head| head.get(9..12)?.parse().ok());
    (status.unwrap_or(0), answer.get(head + 4..).unwrap_or_default().to_vec())
}
