//! `[egress]`: which private networks and which ports deliveries may go to, and whom to trust beside the public
//! authorities. What is denied by default is the egress guard's part.

use super::EgressSettings;
use super::error::Report;
use super::outside::Files;
use super::settings::Origins;
use super::tree::{Node, Table};
use crate::core::cidr::Cidr;

/// The keys beside the scalar ones.
pub(super) const LIST_KEYS: [&str; 2] = ["allow", "ports"];

/// Most entries of a list.
const ENTRIES_MAX: usize = 1_000;

/// Longest file of certificates, in bytes.
const CA_BYTES_MAX: usize = 4 << 20;

/// How a certificate begins in a PEM file (RFC 7468 section 5).
const CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// Reads the lists.
pub(super) fn read_lists(table: &Table<'_>, settings: &mut EgressSettings, report: &mut Report) {
    if let Some(items) = list(table, "allow", "a list of networks such as [\"10.1.0.0/16\"]", 0, report) {
        settings.allow = items.iter().filter_map(|item| network(item, report)).collect();
    }
    if let Some(items) = list(table, "ports", "a list of ports such as [443], with one at least", 1, report) {
        settings.ports = Some(items.iter().filter_map(|item| port(item, report)).collect());
    }
}

/// Checks that the certificates are there, so that it isn't the first delivery that finds out.
pub(super) fn check_ca_file(settings: &EgressSettings, files: &dyn Files, origins: &Origins, report: &mut Report) {
    let Some(path) = &settings.ca_file else { return };
    let got = match files.read(path, CA_BYTES_MAX) {
        Err(e) => format!("an error: {e}"),
        Ok(content) if content.bytes.len() > CA_BYTES_MAX => format!("more than {CA_BYTES_MAX} bytes"),
        Ok(content) if !content.bytes.windows(CERTIFICATE.len()).any(|w| w == CERTIFICATE) => "none".to_owned(),
        Ok(_) => return,
    };
    let message = format!("expected PEM certificates in {}, got {got}", path.display());
    report.error(origins.spot("egress.ca_file"), &message);
}

fn list<'t>(table: &Table<'t>, key: &str, what: &str, min: usize, report: &mut Report) -> Option<Vec<Node<'t>>> {
    let node = table.get(key)?;
    let items = node.list(what, report)?;
    if !(min..=ENTRIES_MAX).contains(&items.len()) {
        node.blind(&format!("{what}, at most {ENTRIES_MAX}"), &format!("{} of them", items.len()), report);
        return None;
    }
    Some(items)
}

fn port(item: &Node<'_>, report: &mut Report) -> Option<u16> {
    let port = item.whole().and_then(|n| u16::try_from(n).ok()).filter(|n| *n != 0);
    if port.is_none() {
        item.expected("a port between 1 and 65535", report);
    }
    port
}

fn network(item: &Node<'_>, report: &mut Report) -> Option<Cidr> {
    let text = item.text("a network such as \"10.1.0.0/16\"", report)?;
    text.parse::<Cidr>().map_err(|e| report.error(item.spot(), &e.to_string())).ok()
}
