//! What the attacks find: an input, a directory with traps in it, a secret, a clock. And how one is carried out.

use std::{
    cell::Cell,
    fs,
    os::unix::fs::symlink,
    time::{Duration, Instant},
};

use cap_std::{ambient_authority, fs::Dir};
use flowstone::{
    blob::{BlobError, Content, Digest},
    capability::{
        Reach,
        context::Context,
        files::Directory,
        inputs::{InputGrant, InputVersion},
        log::Log,
        secrets::GrantedSecret,
    },
    engine::{Attempt, DescribeFailure, Report},
    pipeline::resource::{Access, DirectoryGrant},
    secret::SecretValue,
};
use rustix::fs::{CWD, Mode, mkfifoat};
use tokio_util::sync::CancellationToken;

use crate::{
    attack::{Attack, Expected},
    support::Host,
};

/// Where attacks happen.
pub struct Ground {
    host: Host,
    input: InputGrant,
    /// Components that the engine keeps ready, each with the file of its machine code open.
    pub kept: Cell<usize>,
}

/// The secret that must not be said.
pub const SECRET: &str = "correct-horse-battery-staple";

/// How an attack ended.
#[derive(Debug)]
pub struct Ended {
    pub how: Expected,
    pub explanation: String,
    /// Of the part that is bounded.
    pub took: Duration,
    pub report: Option<Report>,
}

impl Ground {
    /// With an engine that runs one attempt at a time.
    pub async fn new() -> Self {
        let host = Host::new();
        let station = host.folder.path().join("station");
        fs::create_dir_all(station.join("below")).unwrap();
        let outside = host.folder.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("outside.csv"), "not yours").unwrap();
        fs::write(host.folder.path().join("outside.csv"), "not yours").unwrap();
        fs::write(station.join("secret.txt"), "not yours").unwrap();
        fs::write(station.join(".flowstone-1.csv"), "not yours").unwrap();
        symlink("../outside.csv", station.join("link.csv")).unwrap();
        symlink("../outside", station.join("out")).unwrap();
        mkfifoat(CWD, station.join("pipe.csv"), Mode::RUSR | Mode::WUSR).unwrap();
        fs::write(station.join("a.csv"), "1,2").unwrap();
        for n in 0..500 {
            fs::write(station.join(format!("below/{n}.csv")), "1,2").unwrap();
        }
        let bytes: Vec<u8> = (0..3_u32 << 20).map(|n| (n % 251) as u8).collect();
        host.blobs.put("default", bytes.clone()).await.unwrap();
        let version = InputVersion {
            asset: "raw".into(),
            partition: vec![],
            materialization: "m".into(),
            digest: Digest::of(&bytes),
            size: bytes.len() as u64,
            media_type: "text/plain".into(),
            metadata: vec![],
            content: Content::Stored,
        };
        Self { host, input: InputGrant { name: "raw".into(), versions: vec![version] }, kept: Cell::new(0) }
    }

    /// Files that were left in the place where unfinished ones are.
    pub fn unfinished_files(&self) -> usize {
        fs::read_dir(self.host.folder.path().join("blobs/tmp")).unwrap().count()
    }

    /// Uploads, deploys and runs, as far as it comes.
    pub async fn carry_out(&self, attack: &Attack, bytes: Vec<u8>) -> Ended {
        let engine = &self.host.engine;
        let mut started = Instant::now();
        let ended =
            |how, explanation, started: Instant, report| Ended { how, explanation, took: started.elapsed(), report };
        if let Err(problems) = engine.inspect(&bytes) {
            let all: Vec<String> = problems.into_iter().map(|problem| problem.0).collect();
            return ended(Expected::Refused, all.join("\n"), started, None);
        }
        let digest = Digest::of(&bytes);
        let component = match engine.load("default", digest, || async { Ok::<_, BlobError>(bytes) }).await {
            Ok(component) => {
                self.kept.set(self.kept.get() + 1);
                component
            }
            Err(error) => {
                assert!(error.is_refused(), "{}: the host is in trouble: {error}", attack.name);
                return ended(Expected::Refused, error.to_string(), started, None);
            }
        };
        match engine.describe(&component).await {
            Ok(_) => {}
            Err(DescribeFailure::Ended { verdict, explanation, .. }) => {
                return ended(Expected::NotDescribed(verdict.as_str().into()), explanation, started, None);
            }
            Err(DescribeFailure::OutOfBounds(problems)) => {
                let how = Expected::NotDescribed("out-of-bounds".into());
                return ended(how, problems.join("\n"), started, None);
            }
            Err(DescribeFailure::Host(why)) => panic!("{}: the host is in trouble: {why}", attack.name),
        }
        started = Instant::now();
        let attempt = Attempt {
            component,
            context: Context { run_id: "run".into(), asset: "thing".into(), attempt: 1, ..Context::default() },
            inputs: vec![self.input.clone()],
            reach: self.reach(&attack.grants),
            limits: attack.limits.clone(),
            media_type: "text/plain".into(),
            log: Log::default(),
            seed: [7; 32],
            tenant: "default".into(),
            blobs: self.host.blobs.clone(),
        };
        let report = engine.run(attempt, CancellationToken::new()).await;
        let how = Expected::Verdict(report.verdict.as_str().into());
        ended(how, report.explanation.clone(), started, Some(report))
    }

    fn reach(&self, grants: &[String]) -> Reach {
        let mut reach = Reach::default();
        for grant in grants {
            match grant.as_str() {
                "station" => reach.directories.push(self.station(Access::Read)),
                "station-write" => reach.directories.push(self.station(Access::ReadWrite)),
                "token" => {
                    let value = SecretValue::new(SECRET.into());
                    reach.secrets.push(GrantedSecret { name: "token".into(), value });
                }
                "clock" => reach.clock = Some("wall".into()),
                _ => panic!("{grant} is not there to be granted"),
            }
        }
        reach
    }

    /// The directory, its CSV files.
    fn station(&self, access: Access) -> Directory {
        let path = self.host.folder.path().join("station");
        Directory {
            directory: Dir::open_ambient_dir(path, ambient_authority()).unwrap(),
            grant: DirectoryGrant {
                resource: "station".into(),
                access,
                paths: vec!["*.csv".into(), "**/*.csv".into()],
                write_bytes: 10_000_000,
                entries: 1_000,
                mount: None,
            },
        }
    }
}
