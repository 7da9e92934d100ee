//! TLS: checks the files that a URI names before the driver, whose errors name none; and
//! certificates for another host name.

use std::path::Path;
use std::sync::Arc;

use mongodb::options::{ClientOptions, ServerAddress, Tls, TlsOptions};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::{MongoUri, probe};
use crate::error::{Error, ErrorKind, Result};
use crate::system;

/// Checks the files that the URI names, and handles what the driver cannot.
///
/// # Errors
/// [`ErrorKind::Usage`], naming the file and the option; [`ErrorKind::Denied`] for an untrusted
/// server certificate, if host names do not count.
pub(super) async fn prepare(uri: &MongoUri, options: &mut ClientOptions) -> Result<()> {
    let Some(Tls::Enabled(tls)) = &mut options.tls else { return Ok(()) };
    if let Some(path) = &tls.ca_file_path {
        let trusted = roots(Some(path)).map_err(|what| refused(uri, "tlsCAFile", path, &what))?;
        if trusted.is_empty() {
            return Err(refused(uri, "tlsCAFile", path, "it holds no certificate"));
        }
    }
    look_at_key(uri, tls)?;
    if uri.takes_any_hostname() && tls.allow_invalid_certificates != Some(true) {
        trust(uri, &options.hosts, tls).await?;
        // The driver checks all of a certificate or nothing.
        tls.allow_invalid_certificates = Some(true);
    }
    Ok(())
}

/// Checks that certificate and key exist, and that the key can be read. An unneeded password is
/// dropped: the driver accepts one for encrypted keys only.
fn look_at_key(uri: &MongoUri, tls: &mut TlsOptions) -> Result<()> {
    let option = "tlsCertificateKeyFile";
    let Some(path) = tls.cert_key_file_path.clone() else {
        if tls.tls_certificate_key_file_password.take().is_some() {
            tracing::warn!("tlsCertificateKeyFilePassword of {uri} is ignored: there is no tlsCertificateKeyFile");
        }
        return Ok(());
    };
    let content = system::small_file(&path).map_err(|e| refused(uri, option, &path, &format!("it cannot be read: {e}")))?;
    let content = String::from_utf8_lossy(&content);
    let holds = |what: &str| content.contains(&format!("-----BEGIN {what}-----"));
    if !holds("CERTIFICATE") {
        return Err(refused(uri, option, &path, "it holds no certificate")
            .hint("put the client's certificate and its private key into one PEM file"));
    }
    if content.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(refused(uri, option, &path, "its key is encrypted in an obsolete format")
            .hint("convert the key: `openssl pkcs8 -topk8 -in OLD.pem -out NEW.pem`, and put it in its place"));
    }
    match (holds("ENCRYPTED PRIVATE KEY"), tls.tls_certificate_key_file_password.is_some()) {
        (true, true) => {}
        (true, false) => {
            return Err(refused(uri, option, &path, "its key is encrypted")
                .hint("add tlsCertificateKeyFilePassword=PASSWORD to the URI, with special characters percent-encoded"));
        }
        (false, _) if ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"].into_iter().any(holds) => {
            tls.tls_certificate_key_file_password = None;
        }
        (false, _) => {
            return Err(refused(uri, option, &path, "it holds no private key")
                .hint("put the client's certificate and its private key into one PEM file"));
        }
    }
    Ok(())
}

fn refused(uri: &MongoUri, option: &str, path: &Path, what: &str) -> Error {
    let relative = if path.is_relative() { "; a relative path starts at the working directory" } else { "" };
    Error::usage(format!("{option} of {uri}: {}: {what}", path.display()))
        .hint(format!("check {option} in {}{relative}", uri.role().setting()))
}

/// The certificates of this file, or by default those of the usual public CAs.
fn roots(path: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    match path {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            let content = system::small_file(path).map_err(|e| format!("it cannot be read: {e}"))?;
            roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&content).flatten());
        }
    }
    Ok(roots)
}

/// Checks the certificate of each server that answers: a trusted CA must have issued it, for any
/// name.
async fn trust(uri: &MongoUri, hosts: &[ServerAddress], tls: &TlsOptions) -> Result<()> {
    let unusable = |e: String| Error::usage(format!("TLS of {uri} cannot be set up: {e}"));
    let roots = roots(tls.ca_file_path.as_deref()).map_err(unusable)?;
    let provider = Arc::new(ring::default_provider());
    let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|e| unusable(e.to_string()))?;
    let config = config(provider, AnyName(usual)).map_err(|e| unusable(e.to_string()))?;
    for address in hosts {
        if let Some(Err(e)) = probe::shake_hands(address, config.clone()).await {
            return Err(Error::new(
                ErrorKind::Denied,
                format!("connecting to {uri}: the certificate of {address} is not trusted: {e}"),
            )
            .hint("name the file of its CA with tlsCAFile"));
        }
    }
    Ok(())
}

/// A configuration to find out what a port speaks: it accepts no certificate.
pub(super) fn anything() -> Option<Arc<ClientConfig>> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().ok()?;
    Some(Arc::new(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth()))
}

fn config(provider: Arc<CryptoProvider>, verifier: AnyName) -> Result<Arc<ClientConfig>, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()))
}

/// Checks everything about a certificate except the host name.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // The host name is checked last.
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
