//! TLS from Rocket's settings: `tls.certs`, `tls.key`, `tls.ciphers`,
//! `tls.prefer_server_cipher_order`.

use std::path::PathBuf;
use std::sync::Arc;

use rocket::config::{CipherSuite, TlsConfig};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, SupportedCipherSuite};
use tokio_rustls::TlsAcceptor;

use crate::error::{Error, Result};
use crate::system;

/// The acceptor of TLS connections.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) if the certificate, the key or the ciphers
/// are invalid.
pub(super) fn acceptor(config: &TlsConfig) -> Result<TlsAcceptor> {
    let provider = CryptoProvider { cipher_suites: suites(config)?, ..ring::default_provider() };
    let (certificates, key) = (certificates(config)?, key(config)?);
    let unusable = |e: rustls::Error| {
        Error::usage(format!("the server's TLS settings are invalid: {e}"))
            .hint("tls.certs and tls.key must belong together; check tls.ciphers, too")
    };
    let mut server = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(unusable)?;
    server.ignore_client_order = config.prefer_server_cipher_order();
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
}

fn certificates(config: &TlsConfig) -> Result<Vec<CertificateDer<'static>>> {
    let (place, pem) = read("tls.certs", config.certs().left(), config.certs().right())?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|e| refused(&place, &e))?;
    if found.is_empty() { Err(refused(&place, &"it holds no certificate")) } else { Ok(found) }
}

fn key(config: &TlsConfig) -> Result<PrivateKeyDer<'static>> {
    let (place, pem) = read("tls.key", config.key().left(), config.key().right())?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|e| refused(&place, &e))
}

fn refused(place: &str, why: &dyn std::fmt::Display) -> Error {
    Error::usage(format!("{place} is invalid: {why}")).hint("it must be PEM, and a key must not have a password")
}

/// Reads the content of a setting, or of the file that it names. Returns a name for errors, too.
fn read(setting: &str, path: Option<PathBuf>, bytes: Option<&[u8]>) -> Result<(String, Vec<u8>)> {
    let Some(path) = path else { return Ok((setting.to_owned(), bytes.unwrap_or_default().to_vec())) };
    let place = format!("{setting}, {},", path.display());
    let bytes = system::small_file(&path).map_err(|e| {
        Error::usage(format!("{place} cannot be read: {e}"))
            .hint("give read permission to the user that runs the service")
            .cause(e)
    })?;
    Ok((place, bytes))
}

/// The configured ciphers, in their order.
fn suites(config: &TlsConfig) -> Result<Vec<SupportedCipherSuite>> {
    use ring::cipher_suite as known;
    let of = |suite| match suite {
        CipherSuite::TLS_AES_256_GCM_SHA384 => Ok(known::TLS13_AES_256_GCM_SHA384),
        CipherSuite::TLS_AES_128_GCM_SHA256 => Ok(known::TLS13_AES_128_GCM_SHA256),
        CipherSuite::TLS_CHACHA20_POLY1305_SHA256 => Ok(known::TLS13_CHACHA20_POLY1305_SHA256),
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => Ok(known::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => Ok(known::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => Ok(known::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => Ok(known::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => Ok(known::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => Ok(known::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
        other => Err(Error::usage(format!("tls.ciphers names {other:?}, which this program does not support"))),
    };
    config.ciphers().map(of).collect()
}
