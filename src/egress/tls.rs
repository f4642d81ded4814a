//! How endpoints prove who they are: certificates against Mozilla's roots, and the operator's own authorities.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// Certificate authorities that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// Not PEM.
    #[error("expected certificates in PEM form (-----BEGIN CERTIFICATE-----)")]
    Pem(#[source] rustls::pki_types::pem::Error),
    /// No certificate in it.
    #[error("expected at least one certificate in PEM form (-----BEGIN CERTIFICATE-----), found none")]
    Empty,
    /// A certificate that can't be an authority.
    #[error("expected certificates of authorities; number {number} cannot be used as one")]
    Certificate {
        /// Counted from 1.
        number: usize,
        /// Why.
        source: rustls::Error,
    },
    /// The cryptography can't do TLS 1.2 and 1.3, which would be a fault of this build.
    #[error("this build has no usable TLS version")]
    Versions(#[source] rustls::Error),
}

/// Reads the certificates of a PEM file: `egress.ca_file`.
pub fn ca_from_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CaError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(CaError::Pem)?;
    if certificates.is_empty() { Err(CaError::Empty) } else { Ok(certificates) }
}

/// TLS 1.2 and 1.3 against Mozilla's roots and `extra` ones; HTTP/2 is preferred where both sides speak it.
pub(super) fn client_config(extra: &[CertificateDer<'static>]) -> Result<Arc<ClientConfig>, CaError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for (i, certificate) in extra.iter().enumerate() {
        roots.add(certificate.clone()).map_err(|source| CaError::Certificate { number: i + 1, source })?;
    }
    // The provider is named, not taken from the process, where another crate could have installed another one.
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(CaError::Versions)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_refused() {
        assert!(matches!(ca_from_pem(b""), Err(CaError::Empty)));
        assert!(matches!(ca_from_pem(b"not a certificate"), Err(CaError::Empty)));
        let broken = b"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
        assert!(matches!(ca_from_pem(broken), Err(CaError::Pem(_))));
        let nonsense = CertificateDer::from(vec![1, 2, 3]);
        assert!(matches!(client_config(&[nonsense]), Err(CaError::Certificate { number: 1, .. })));
    }
}
