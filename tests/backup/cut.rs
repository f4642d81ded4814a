//! Backups that are cut in the middle: a middleman between command and gateway lets so much pass and no more.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::place::{SMALL, api, backup, backup_arguments, file, payload, publish, run, traces};
use super::support::PATIENCE;
use super::support::gateway::{Gateway, Site};

/// Bytes that pass at first: the head, and some of the backup.
const PASSED_BYTES: usize = 100_000;

/// Stands between the command and the gateway.
struct Middleman {
    url: String,
    /// Tells when the first bytes have passed.
    passed: Receiver<()>,
    /// Lets the rest pass.
    go_on: Sender<()>,
}

impl Middleman {
    /// Of one connection.
    fn new(site: &Site) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let ((tell, passed), (go_on, may_go_on)) = (channel(), channel());
        let gateway = site.management;
        std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut server = TcpStream::connect(gateway).unwrap();
            let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
            let mut first = vec![0; PASSED_BYTES];
            server.read_exact(&mut first).unwrap();
            client.write_all(&first).unwrap();
            tell.send(()).unwrap();
            // Whoever waits no longer wants both ends closed.
            if may_go_on.recv().is_ok() {
                let _ = std::io::copy(&mut server, &mut client);
            }
            // The other direction holds them too. An error says that they are closed already.
            let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
        });
        Self { url, passed, go_on }
    }

    fn wait(&self) {
        self.passed.recv_timeout(PATIENCE).unwrap();
    }
}

/// Events of each of eight writers that are more than the middleman lets pass, and than sockets hold.
const MANY: usize = 100;

/// A gateway with so many events of each of eight writers.
fn filled(each: usize) -> (Site, Gateway) {
    let site = Site::new(SMALL);
    let gateway = site.start();
    let token = site.token();
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let mut api = super::support::client::Client::with_token(site.management, &token);
            scope.spawn(move || {
                for n in 0..each {
                    let key = format!("{writer}-{n}");
                    publish(&mut api, &key, &payload(&format!("{key}{}", "y".repeat(5_000))));
                }
            });
        }
    });
    (site, gateway)
}

fn spawn(site: &Site, middleman: &Middleman) -> std::process::Child {
    let arguments = backup_arguments(site, Some(&middleman.url));
    let mut command = site.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    command.current_dir(site.home()).stdout(Stdio::null()).spawn().unwrap()
}

#[test]
fn whoever_is_killed_in_the_middle_leaves_no_backup() {
    let (site, gateway) = filled(MANY);
    // The command.
    let middleman = Middleman::new(&site);
    let mut command = spawn(&site, &middleman);
    middleman.wait();
    let second = backup(&site).expect(2);
    assert!(second.stderr.contains("the.backup.partial"), "{}", second.stderr);
    let mut elsewhere = backup_arguments(&site, None);
    elsewhere[2] = "other.backup".to_owned();
    let second = run(&site, &elsewhere.iter().map(String::as_str).collect::<Vec<_>>()).expect(1);
    assert!(second.stderr.contains("backup_runs"), "{}", second.stderr);
    assert_eq!(traces(&site), ["the.backup.partial"]);
    command.kill().unwrap();
    command.wait().unwrap();
    drop(middleman);
    assert_eq!(traces(&site), ["the.backup.partial"], "no backup, and the next one takes the place");

    // A dead command's backup ends once its connection is known to be gone.
    loop {
        let next = backup(&site);
        if next.code == Some(0) {
            break;
        }
        assert!(next.stderr.contains("backup_runs"), "{}", next.stderr);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(traces(&site), ["the.backup"]);
    std::fs::remove_file(file(&site)).unwrap();

    // The gateway.
    let middleman = Middleman::new(&site);
    let mut command = spawn(&site, &middleman);
    middleman.wait();
    gateway.kill();
    middleman.go_on.send(()).unwrap();
    assert_eq!(command.wait().unwrap().code(), Some(7), "{}", site.log());
    assert_eq!(traces(&site), [""; 0]);
    let gateway = site.start();
    let events = backup(&site).expect(0).json()["events"].clone();
    assert_eq!(events, 800);
    gateway.kill();
}

#[test]
fn a_restore_that_is_killed_at_any_moment_makes_all_or_nothing() {
    let (site, gateway) = filled(10);
    backup(&site).expect(0);
    gateway.kill();
    let target = Site::new(SMALL);
    let making = target.home().join("data.restoring");
    let from = file(&site).display().to_string();
    let data = target.data().display().to_string();
    let mut delay_ms = 0;
    loop {
        let mut command = target.command(&["restore", "--from", &from, "--data", &data]);
        let mut restoring = command.stdout(Stdio::null()).spawn().unwrap();
        // Not a wait for anything: this is the moment.
        std::thread::sleep(std::time::Duration::from_millis(delay_ms));
        delay_ms += delay_ms / 2 + 1;
        restoring.kill().unwrap();
        if restoring.wait().unwrap().success() || target.data().exists() {
            break;
        }
        // What is left is in the way of the next one until somebody removes it, whatever it is.
        if making.exists() {
            let refused = run(&target, &["restore", "--from", &from, "--data", &data]).expect(2);
            assert!(refused.stderr.contains("data.restoring"), "{}", refused.stderr);
            std::fs::remove_dir_all(&making).unwrap();
        }
    }
    run(&target, &["journal", "verify", "--data", &data]).expect(0);
    let gateway = target.start();
    let listed = api(&target).get("/api/v1/app/default/msg?limit=250").unwrap().json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 80);
    gateway.kill();
    let arguments = ["backup", "--offline", "--to", "again.backup", "--json", "--data", &data];
    assert_eq!(run(&target, &arguments).expect(0).json()["events"], 80);
}

#[test]
fn a_gateway_that_is_told_to_stop_does_not_wait_for_a_backup() {
    let (site, mut gateway) = filled(MANY);
    let middleman = Middleman::new(&site);
    let mut command = spawn(&site, &middleman);
    middleman.wait();
    gateway.terminate();
    assert_eq!(gateway.exit_code(), Some(0), "{}", site.log());
    drop(middleman);
    assert_eq!(command.wait().unwrap().code(), Some(7));
    assert_eq!(traces(&site), [""; 0]);
    let data = site.data().display().to_string();
    run(&site, &["backup", "--offline", "--to", "the.backup", "--data", &data]).expect(0);
    let gateway = site.start();
    publish(&mut api(&site), "another", "1");
    gateway.kill();
}
