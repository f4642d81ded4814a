//! A disk without room, one that may not be written any more, too few descriptors, files that may not grow: with the real
//! things, where the machine lets us have them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::session::api;
use super::support::client::Client;
use super::support::gateway::{Gateway, Site};
use super::switched::Switched;

/// What all events are signed with.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Bytes of the file system that runs full.
const ROOM: &str = "32m";

/// A file system in memory on a directory, for as long as this lives.
struct Mount(PathBuf);

impl Mount {
    /// `None`, and a word about it, where that is not allowed.
    fn new(at: PathBuf) -> Option<Self> {
        fs::create_dir_all(&at).unwrap();
        let size = format!("size={ROOM}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&at).output();
        if mounted.as_ref().is_ok_and(|output| output.status.success()) {
            return Some(Self(at));
        }
        println!("SKIPPED: a tmpfs can't be mounted here: {mounted:?}");
        None
    }

    fn remount(&self, how: &str) {
        let done = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&self.0).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(done.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

/// A site with one endpoint, which takes nothing until it is told to.
struct Scene {
    site: Site,
    endpoint: Switched,
}

impl Scene {
    fn new() -> Self {
        let endpoint = Switched::down();
        let address = endpoint.address;
        let retry = "{ base_s = 1, factor = 1.0, retries = 100, jitter = 0.0 }";
        let config = format!(
            "[[endpoint]]\nname = \"app\"\nurl = \"http://{address}/\"\nevent_types = [\"**\"]\nsecret = \"{SECRET}\"\n\
             retry = {retry}\n[limits]\nsegment_bytes = \"1MiB\"\nbatch_bytes = \"512KiB\"\ncache_bytes = \"1MiB\"\n\
             body_bytes = \"200KiB\"\napi_body_bytes = \"200KiB\"\nfree_bytes = \"1MiB\"\n"
        );
        Self { site: Site::new(&config), endpoint }
    }

    /// Publishes an event with so many bytes; its id if it was taken, nothing if not.
    fn publish(&self, client: &mut Client, bytes: usize) -> Result<Option<String>, std::io::Error> {
        let json = [("content-type".to_owned(), "application/json".to_owned())];
        let body = format!("{{\"eventType\":\"order.created\",\"payload\":\"{}\"}}", "x".repeat(bytes));
        let answer = client.ask("POST", "/api/v1/app/default/msg", &json, body.as_bytes())?;
        match answer.status {
            202 => Ok(Some(answer.json()["id"].as_str().unwrap().to_owned())),
            503 => Ok(None),
            status => panic!("{status}: {}", answer.json()),
        }
    }

    /// Publishes until nothing more is taken or the gateway is gone.
    fn publish_until_refused(&self, bytes: usize, at_most: usize) -> Vec<String> {
        let mut client = api(&self.site);
        let mut taken = Vec::new();
        for _ in 0..at_most {
            match self.publish(&mut client, bytes) {
                Ok(Some(id)) => taken.push(id),
                Ok(None) | Err(_) => break,
            }
        }
        taken
    }

    /// Starts what `sh` makes of the command line, with limits of its own.
    fn spawn_with(&self, ulimit: &str) -> Gateway {
        let serve = self.site.serve();
        let log = fs::OpenOptions::new().append(true).open(self.site.home().join("log")).unwrap();
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("ulimit {ulimit}; exec \"$0\" \"$@\"")).arg(serve.get_program());
        shell.args(serve.get_args()).stderr(log);
        Gateway::spawn(shell)
    }
}

/// Puts zeros into a file until there is no room for more.
fn fill(at: &Path) {
    use std::io::Write;
    let mut file = fs::File::create(at).unwrap();
    for block in [1 << 20, 4_096, 1] {
        while file.write_all(&vec![0; block]).is_ok() {}
    }
}

#[test]
fn a_full_disk_closes_intake_and_nothing_is_lost() {
    let scene = Scene::new();
    let site = &scene.site;
    let Some(mount) = Mount::new(site.data()) else { return };
    let mut gateway = site.start();
    // Intake closes while there is room for what deliveries need.
    let mut taken = scene.publish_until_refused(100_000, 1_000);
    assert!(taken.len() > 50, "{} events\n{}", taken.len(), site.log());
    let ready = Client::new(site.management).get("/readyz").unwrap();
    assert_eq!(ready.status, 503, "{}", ready.json());
    // Somebody else takes the rest, to the last byte.
    fill(&site.data().join("somebody-elses"));
    taken.extend(scene.publish_until_refused(1_000, 1_000));
    gateway.terminate();
    let code = gateway.exit_code();
    assert!(matches!(code, Some(0 | 6)), "{code:?}\n{}", site.log());
    // The ballast is for this start: it serves and delivers, and takes nothing in that there may be no room for.
    let mut gateway = site.start();
    let refused = scene.publish_until_refused(1_000, 10_000);
    let count = taken.len();
    assert!(refused.len() < 10_000, "{}", site.log());
    scene.endpoint.take(taken.into_iter().chain(refused));
    gateway.terminate();
    assert_eq!(gateway.exit_code(), Some(0), "{}", site.log());
    // With room again it is as it was.
    mount.remount("size=64m");
    let mut gateway = site.start();
    let taken = scene.publish_until_refused(1_000, 10);
    println!("{count} events on a full disk, {} after it", taken.len());
    assert!(!taken.is_empty(), "{}", site.log());
    scene.endpoint.take(taken);
    gateway.terminate();
    assert_eq!(gateway.exit_code(), Some(0), "{}", site.log());
}

#[test]
fn a_disk_that_became_read_only_is_a_storage_failure() {
    let scene = Scene::new();
    let site = &scene.site;
    let Some(mount) = Mount::new(site.data()) else { return };
    let mut gateway = site.start();
    let taken = scene.publish_until_refused(1_000, 20);
    assert_eq!(taken.len(), 20);
    gateway.terminate();
    assert_eq!(gateway.exit_code(), Some(0), "{}", site.log());
    mount.remount("ro");
    let before = site.log().len();
    let mut gateway = Gateway::spawn(site.serve());
    assert!(!gateway.is_ready());
    assert_eq!(gateway.exit_code(), Some(6));
    let said = &site.log()[before..];
    assert!(said.contains("error: ") && said.contains("Read-only file system"), "{said}");
    mount.remount("rw");
    let gateway = site.start();
    scene.endpoint.take(taken);
    gateway.kill();
}

#[test]
fn with_few_descriptors_it_serves_or_says_why_not() {
    let scene = Scene::new();
    let site = &scene.site;
    let mut ids = Vec::new();
    let (mut served, mut refused) = (0, 0);
    for files in [6, 10, 14, 18, 22, 26, 30, 40, 64] {
        let before = site.log().len();
        let mut gateway = scene.spawn_with(&format!("-n {files}"));
        if !gateway.is_ready() {
            refused += 1;
            let (code, said) = (gateway.exit_code(), site.log()[before..].to_owned());
            // Before the descriptors there is the loader, and what it says.
            assert!(matches!(code, Some(6 | 8 | 127)), "{files}: {code:?}\n{said}");
            assert!(code == Some(127) || said.contains("error: "), "{files}: {said}");
            assert!(!said.contains("panicked"), "{files}: {said}");
            continue;
        }
        // More clients than there are descriptors; they go away again.
        let crowd: Vec<_> = (0..80).map(|_| std::net::TcpStream::connect(site.ingress)).collect();
        drop(crowd);
        ids.extend(scene.publish_until_refused(1_000, 5));
        gateway.terminate();
        let code = gateway.exit_code();
        let said = &site.log()[before..];
        assert!(matches!(code, Some(0 | 6)) && !said.contains("panicked"), "{files}: {code:?}\n{said}");
        served += usize::from(code == Some(0));
    }
    assert!(served > 0 && refused > 0, "{served} served, {refused} did not");
    let gateway = site.start();
    println!("{served} served and {refused} did not start; {} events", ids.len());
    scene.endpoint.take(ids);
    gateway.kill();
}

/// A file-size limit sends a signal that ends a process unless it is caught. It is an error like any other of the disk.
#[test]
fn a_file_that_may_not_grow_is_a_storage_failure() {
    let scene = Scene::new();
    let site = &scene.site;
    site.start().kill();
    let mut ids = Vec::new();
    let mut failed = 0;
    // Blocks of 512 bytes: less than a segment, just one, and plenty.
    for blocks in [100, 2_100, 40_000] {
        let before = site.log().len();
        let mut gateway = scene.spawn_with(&format!("-f {blocks}"));
        if gateway.is_ready() {
            ids.extend(scene.publish_until_refused(100_000, 50));
            gateway.terminate();
        }
        let (code, said) = (gateway.exit_code(), site.log()[before..].to_owned());
        assert!(matches!(code, Some(0 | 6)), "{blocks}: {code:?}\n{said}");
        if code == Some(6) {
            failed += 1;
            assert!(said.contains("error: ") && said.contains("File too large"), "{blocks}: {said}");
        }
    }
    assert!(failed > 0, "no limit was met:\n{}", site.log());
    let gateway = site.start();
    println!("{failed} failed of 3; {} events", ids.len());
    scene.endpoint.take(ids);
    gateway.kill();
}
