//! Flags of MongoDB's tools about their internals: accepted with a note, or refused by name.

use super::refusal::{Refusal, refuse};
use crate::error::Result;

/// Those that both tools have.
#[derive(Debug, Default, clap::Args)]
#[command(rename_all = "camelCase")]
pub(super) struct Common {
    #[arg(long, value_name = "SECONDS", hide = true)]
    socket_timeout: Option<String>,
    #[arg(long = "TCPKeepAliveSeconds", value_name = "SECONDS", hide = true)]
    tcp_keep_alive_seconds: Option<String>,
    #[arg(long, value_name = "N", hide = true)]
    num_threads: Option<String>,
    #[arg(long, hide = true)]
    trace: bool,
    #[arg(long = "ipv6", hide = true)]
    ipv6: bool,
    #[arg(long, value_name = "NAMES", hide = true)]
    failpoints: Option<String>,
    #[arg(long = "sslCRLFile", alias = "tlsCRLFile", value_name = "FILE", hide = true)]
    ssl_crl_file: Option<String>,
    #[arg(long = "sslFIPSMode", alias = "tlsFIPSMode", hide = true)]
    ssl_fips_mode: bool,
    #[arg(long, value_name = "NAME", hide = true)]
    gssapi_service_name: Option<String>,
    #[arg(long, value_name = "NAME", hide = true)]
    gssapi_host_name: Option<String>,
    #[arg(long, value_name = "TOKEN", hide = true)]
    aws_session_token: Option<String>,
    #[arg(long, value_name = "DIR", hide = true)]
    dbpath: Option<String>,
    #[arg(long, hide = true)]
    directoryperdb: bool,
    #[arg(long, hide = true)]
    journal: bool,
}

impl Common {
    /// The given flags that have no effect.
    pub(super) fn without_effect(&self) -> Vec<&'static str> {
        let all = [
            ("--socketTimeout", self.socket_timeout.is_some()),
            ("--TCPKeepAliveSeconds", self.tcp_keep_alive_seconds.is_some()),
            ("--numThreads", self.num_threads.is_some()),
            ("--trace", self.trace),
            ("--ipv6", self.ipv6),
        ];
        all.into_iter().filter(|(_, given)| *given).map(|(flag, _)| flag).collect()
    }

    /// Refuses flags that are not supported.
    pub(super) fn refuse(&self) -> Result<()> {
        const FILES: &str = "a server's data files cannot be read without the server";
        const START: &str = "start the server, and name it with --uri";
        const LOGIN: &str = "this login mechanism is not supported";
        const OTHER: &str = "log in with SCRAM-SHA-256, SCRAM-SHA-1, MONGODB-X509 or PLAIN";
        refuse(&[
            (
                self.ssl_crl_file.is_some(),
                Refusal(
                    "--sslCRLFile",
                    "certificate revocation lists are not supported",
                    "leave it out, and remove revoked certificates from --sslCAFile",
                ),
            ),
            (
                self.ssl_fips_mode,
                Refusal(
                    "--sslFIPSMode",
                    "the built-in TLS has no FIPS mode",
                    "leave it out, or use mongodump if you must have FIPS",
                ),
            ),
            (self.gssapi_service_name.is_some(), Refusal("--gssapiServiceName", LOGIN, OTHER)),
            (self.gssapi_host_name.is_some(), Refusal("--gssapiHostName", LOGIN, OTHER)),
            (self.aws_session_token.is_some(), Refusal("--awsSessionToken", LOGIN, OTHER)),
            (self.failpoints.is_some(), Refusal("--failpoints", "it is for tests of MongoDB's tools", "leave it out")),
            (self.dbpath.is_some(), Refusal("--dbpath", FILES, START)),
            (self.directoryperdb, Refusal("--directoryperdb", FILES, START)),
            (self.journal, Refusal("--journal", FILES, START)),
        ])
    }
}
