//! `[egress]`: which private networks and which ports deliveries may go to, and whom to trust beside the public
//! authorities. What is denied by default is the egress guard's part.

use std::net::IpAddr;

use super::EgressSettings;
use super::error::Report;
use super::outside::Files;
use super::settings::Origins;
use super::tree::{Node, Table};

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

fn network(item: &Node<'_>, report: &mut Report) -> Option<String> {
    let text = item.text("a network such as \"10.1.0.0/16\"", report)?;
    match check_cidr(text) {
        Ok(()) => Some(text.to_owned()),
        Err(expected) => {
            item.expected(&expected, report);
            None
        }
    }
}

/// Checks a network in CIDR form (RFC 4632, RFC 4291 section 2.3), or says what was expected. Bits past the prefix must be
/// zero: with others it is not clear what the operator meant.
fn check_cidr(text: &str) -> Result<(), String> {
    let general = || "a network such as \"10.1.0.0/16\" or \"fd00::/8\"".to_owned();
    let Some((address, length)) = text.split_once('/') else {
        return Err(match text.parse::<IpAddr>() {
            Ok(ip) => format!("a network with its prefix length, here {:?}", format!("{ip}/{}", bits_of(ip))),
            Err(_) => general(),
        });
    };
    let address: IpAddr = address.parse().map_err(|_| general())?;
    let bits = bits_of(address);
    let is_number = !length.is_empty() && length.len() <= 3 && length.bytes().all(|b| b.is_ascii_digit());
    let length = length.parse::<u32>().ok().filter(|n| is_number && *n <= bits);
    let length = length.ok_or_else(|| format!("a prefix length between 0 and {bits}"))?;
    let network = masked(address, length);
    if network == address {
        Ok(())
    } else {
        Err(format!("a network without bits past its prefix, here {:?}", format!("{network}/{length}")))
    }
}

fn bits_of(address: IpAddr) -> u32 {
    if address.is_ipv4() { u32::BITS } else { u128::BITS }
}

/// The address with all bits past the prefix set to zero.
fn masked(address: IpAddr, length: u32) -> IpAddr {
    match address {
        IpAddr::V4(ip) => IpAddr::from((ip.to_bits() & u32::MAX.checked_shl(32 - length).unwrap_or(0)).to_be_bytes()),
        IpAddr::V6(ip) => IpAddr::from((ip.to_bits() & u128::MAX.checked_shl(128 - length).unwrap_or(0)).to_be_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn networks_are_checked() {
        for fine in ["10.1.0.0/16", "0.0.0.0/0", "10.1.2.3/32", "fd00::/8", "::/0", "::1/128"] {
            assert_eq!(check_cidr(fine), Ok(()), "{fine}");
        }
        for (text, expected) in [
            ("10.1.2.3", "a network with its prefix length, here \"10.1.2.3/32\""),
            ("10.1.2.3/16", "a network without bits past its prefix, here \"10.1.0.0/16\""),
            ("fd00::1/8", "a network without bits past its prefix, here \"fd00::/8\""),
            ("10.0.0.0/33", "a prefix length between 0 and 32"),
            ("10.0.0.0/+8", "a prefix length between 0 and 32"),
            ("10.0.0.0/", "a prefix length between 0 and 32"),
            ("::/129", "a prefix length between 0 and 128"),
            ("example.com/8", "a network such as \"10.1.0.0/16\" or \"fd00::/8\""),
            ("10.1/16", "a network such as \"10.1.0.0/16\" or \"fd00::/8\""),
        ] {
            assert_eq!(check_cidr(text), Err(expected.to_owned()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_masked_address_is_a_network(bits: u128, length in 0u32..=128) {
            let v6 = masked(IpAddr::from(bits.to_be_bytes()), length);
            prop_assert_eq!(check_cidr(&format!("{v6}/{length}")), Ok(()));
            let v4 = masked(IpAddr::from((bits as u32).to_be_bytes()), length.min(32));
            prop_assert_eq!(check_cidr(&format!("{v4}/{}", length.min(32))), Ok(()));
        }
    }
}
