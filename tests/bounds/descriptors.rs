//! Descriptors: connections past the limit wait, and running out of descriptors ends nothing.

use std::fs::File;
use std::net::TcpStream;
use std::process::{Command, Stdio};

use super::load::{descriptors_of, publish, wait_until};
use super::support::client::Client;
use super::support::gateway::{Gateway, Site};

/// Descriptors beside those of connections: files of the store, the runtime's own, listeners.
const OTHERS: usize = 48;

fn connect(site: &Site, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(site.ingress).unwrap()).collect()
}

#[test]
fn connections_past_the_limit_wait_and_are_served_in_their_turn() {
    const CONNECTIONS: usize = 32;
    let site = Site::new(&format!("[limits]\nconnections = {CONNECTIONS}\nheader_timeout_s = 60\n"));
    let gateway = site.start();
    let before = descriptors_of(gateway.id());
    let held = connect(&site, 3 * CONNECTIONS);
    wait_until("all slots taken", || descriptors_of(gateway.id()) >= before + CONNECTIONS);
    let ingress = site.ingress;
    let late = std::thread::spawn(move || Client::new(ingress).get("/in/nobody").unwrap().status);
    // Management has slots of its own.
    assert_eq!(publish(&mut Client::with_token(site.management, &site.token()), "a", "1").status, 202);
    let open = descriptors_of(gateway.id());
    assert!(open <= CONNECTIONS + OTHERS, "{open} descriptors");
    drop(held);
    assert_eq!(late.join().unwrap(), 404);
}

#[test]
fn without_descriptors_left_connections_wait_and_the_gateway_lives() {
    let site = Site::new("[limits]\nheader_timeout_s = 60\n");
    let serve = site.serve();
    // The limit is set by the shell that becomes the gateway.
    let mut limited = Command::new("sh");
    limited.arg("-c").arg("ulimit -n 96 && exec \"$0\" \"$@\"").arg(serve.get_program()).args(serve.get_args());
    limited.stdin(Stdio::null()).stderr(File::create(site.home().join("log")).unwrap());
    let mut gateway = Gateway::spawn(limited);
    assert!(gateway.is_ready(), "{}", site.log());
    assert!(site.log().contains("file descriptors"), "it says at the start that they are few:\n{}", site.log());
    let held = connect(&site, 200);
    wait_until("running out", || site.log().contains("no connection can be accepted"));
    drop(held);
    assert_eq!(Client::new(site.ingress).get("/in/nobody").unwrap().status, 404);
    assert_eq!(publish(&mut Client::with_token(site.management, &site.token()), "a", "1").status, 202);
}
