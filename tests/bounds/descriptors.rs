//! Descriptors: connections past the limit wait, and running out of descriptors ends nothing.

use std::fs::File;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;

use super::load::{descriptors_of, endpoint, publish, wait_until};
use super::support::PATIENCE;
use super::support::client::Client;
use super::support::gateway::{Gateway, Site};
use super::support::receiver::{Reply, serve};

/// Descriptors beside those of connections: files of the store, the runtime's own, listeners.
const OTHERS: usize = 48;

fn connect(site: &Site, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(site.ingress).unwrap()).collect()
}

/// A gateway that may have so many descriptors.
fn start_with(site: &Site, descriptors: usize) -> Gateway {
    let serve = site.serve();
    // The limit is set by the shell that becomes the gateway.
    let mut limited = Command::new("sh");
    limited.arg("-c").arg(format!("ulimit -n {descriptors} && exec \"$0\" \"$@\""));
    limited.arg(serve.get_program()).args(serve.get_args());
    limited.stdin(Stdio::null()).stderr(File::create(site.home().join("log")).unwrap());
    let mut gateway = Gateway::spawn(limited);
    assert!(gateway.is_ready(), "{}", site.log());
    gateway
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
    let _gateway = start_with(&site, 96);
    assert!(site.log().contains("file descriptors"), "it says at the start that they are few:\n{}", site.log());
    let held = connect(&site, 200);
    wait_until("running out", || site.log().contains("no connection can be accepted"));
    drop(held);
    assert_eq!(Client::new(site.ingress).get("/in/nobody").unwrap().status, 404);
    assert_eq!(publish(&mut Client::with_token(site.management, &site.token()), "a", "1").status, 202);
}

/// With just as many as the gateway asks for.
#[test]
fn many_segments_and_endpoints_need_few_descriptors() {
    const ENDPOINTS: usize = 200;
    const EVENTS: usize = 600;
    const SEGMENTS: usize = 100;
    const READERS: usize = 8;
    const CONNECTIONS: usize = 12;
    const IN_FLIGHT: usize = 8;
    let mut config = format!(
        "[limits]\nsegment_bytes = \"96KiB\"\nbatch_bytes = \"48KiB\"\nbody_bytes = \"20KiB\"\napi_body_bytes = \"20KiB\"\n\
         header_bytes = \"8KiB\"\nrecent_bytes = 0\nfree_bytes = 0\nconnections = {CONNECTIONS}\n\
         api_connections = {CONNECTIONS}\nin_flight = {IN_FLIGHT}\nendpoint_in_flight = {IN_FLIGHT}\n"
    );
    let (arrived, arrivals) = channel();
    for n in 0..ENDPOINTS {
        let arrived = arrived.clone();
        // Each is a host of its own, and keeps its connections open.
        let address = serve(move |_| {
            let _ = arrived.send(());
            Reply::Status(200)
        });
        config.push_str(&endpoint(&format!("n{n}"), &format!("http://{address}/"), &format!("n{n}")));
    }
    let site = Site::new(&config);
    let mut gateway = start_with(&site, 2 * CONNECTIONS + 2 * IN_FLIGHT + 128);
    let mut client = Client::with_token(site.management, &site.token());
    let payload = format!("\"{}\"", "x".repeat(18_000));
    let ids: Vec<String> = (0..EVENTS)
        .map(|n| {
            let answer = publish(&mut client, &format!("n{}", n % ENDPOINTS), &payload);
            assert_eq!(answer.status, 202, "{}", answer.json());
            answer.json()["id"].as_str().unwrap().to_owned()
        })
        .collect();
    (0..EVENTS).for_each(|_| arrivals.recv_timeout(PATIENCE).unwrap());
    assert!(std::fs::read_dir(site.data().join("journal")).unwrap().count() > SEGMENTS);
    std::thread::scope(|scope| {
        for ids in ids.chunks(EVENTS.div_ceil(READERS)) {
            let mut client = Client::with_token(site.management, &site.token());
            scope.spawn(move || {
                for id in ids {
                    assert_eq!(client.get(&format!("/api/v1/app/default/msg/{id}")).unwrap().status, 200);
                }
            });
        }
    });
    gateway.terminate();
    assert_eq!(gateway.exit_code(), Some(0), "{}", site.log());
    for complaint in ["descriptors", "Too many open files", "no connection can be accepted"] {
        assert!(!site.log().contains(complaint), "{}", site.log());
    }
}
