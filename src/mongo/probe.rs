//! Finds out with a few bytes what a port speaks: the driver only reports that a connection broke.

use std::sync::Arc;
use std::time::Duration;

use bson::rawdoc;
use mongodb::Client;
use mongodb::options::{ClientOptions, ServerAddress};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::command;

/// How long a port may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// The most bytes to read of a handshake.
const LONGEST: usize = 256 * 1024;
/// The message type of a server's reply: `OP_MSG`.
const OP_MSG: i32 = 2013;

/// Whether anything listens on this address.
pub(super) async fn listens(address: &ServerAddress) -> bool {
    connect(address).await.is_some()
}

/// The replica set that a server reports; the inner `None` if it has none, the outer if there is no
/// answer.
pub(super) async fn replica_set(address: &ServerAddress, options: &ClientOptions) -> Option<Option<String>> {
    let mut options = options.clone();
    (options.hosts, options.repl_set_name, options.credential) = (vec![address.clone()], None, None);
    (options.direct_connection, options.server_selection_timeout) = (Some(true), Some(PATIENCE));
    options.load_balanced = None;
    let client = Client::with_options(options).ok()?;
    let hello = command::ask(&client.database("admin"), rawdoc! { "hello": 1 }).await.ok();
    client.shutdown().immediate(true).await;
    Some(hello?.get_str("setName").ok().map(str::to_owned))
}

/// Whether a server answers without TLS.
pub(super) async fn speaks_plain(address: &ServerAddress) -> bool {
    let ask = async {
        let mut stream = connect(address).await?;
        let hello = rawdoc! { "hello": 1, "$db": "admin" };
        let length = i32::try_from(16 + 4 + 1 + hello.as_bytes().len()).ok()?;
        let mut message: Vec<u8> = [length, 1, 0, OP_MSG, 0].into_iter().flat_map(i32::to_le_bytes).collect();
        message.push(0);
        message.extend_from_slice(hello.as_bytes());
        stream.write_all(&message).await.ok()?;
        let mut header = [0; 16];
        stream.read_exact(&mut header).await.ok()?;
        let [.., a, b, c, d] = header;
        Some(i32::from_le_bytes([a, b, c, d]) == OP_MSG)
    };
    timeout(PATIENCE, ask).await.ok().flatten().unwrap_or(false)
}

/// Whether a server answers with TLS. Its certificate is not checked.
pub(super) async fn speaks_tls(address: &ServerAddress, config: Arc<ClientConfig>) -> bool {
    let ask = async {
        let mut stream = connect(address).await?;
        let mut tls = client(address, config)?;
        let mut hello = Vec::new();
        tls.write_tls(&mut hello).ok()?;
        stream.write_all(&hello).await.ok()?;
        let mut header = [0; 3];
        stream.read_exact(&mut header).await.ok()?;
        // A handshake or an alert, of any version.
        Some(matches!(header, [0x15 | 0x16, 3, _]))
    };
    timeout(PATIENCE, ask).await.ok().flatten().unwrap_or(false)
}

/// Performs a handshake, so that the configuration's verifier sees the certificate. `None` if there
/// is no answer, or not with TLS.
pub(super) async fn shake_hands(address: &ServerAddress, config: Arc<ClientConfig>) -> Option<Result<(), rustls::Error>> {
    let shake = async {
        let mut stream = connect(address).await?;
        let mut tls = client(address, config)?;
        let mut read = 0;
        while tls.is_handshaking() && read < LONGEST {
            send(&mut tls, &mut stream).await?;
            let mut buffer = [0; 8192];
            let count = stream.read(&mut buffer).await.ok().filter(|count| *count > 0)?;
            read += count;
            let mut bytes = &buffer[..count];
            while !bytes.is_empty() {
                tls.read_tls(&mut bytes).ok()?;
                match tls.process_new_packets() {
                    Ok(_) => {}
                    Err(e @ rustls::Error::InvalidCertificate(_)) => return Some(Err(e)),
                    // The server refuses this client, perhaps because it has no certificate: the
                    // driver reports that.
                    Err(_) => return None,
                }
            }
        }
        Some(Ok(()))
    };
    timeout(PATIENCE, shake).await.ok().flatten()
}

async fn send(tls: &mut ClientConnection, stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Option<()> {
    let mut bytes = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut bytes).ok()?;
    }
    stream.write_all(&bytes).await.ok()
}

fn client(address: &ServerAddress, config: Arc<ClientConfig>) -> Option<ClientConnection> {
    let ServerAddress::Tcp { host, .. } = address else { return None };
    ClientConnection::new(config, ServerName::try_from(host.clone()).ok()?).ok()
}

async fn connect(address: &ServerAddress) -> Option<TcpStream> {
    let ServerAddress::Tcp { host, port } = address else { return None };
    let stream = timeout(PATIENCE, TcpStream::connect((host.as_str(), port.unwrap_or(27017)))).await;
    stream.ok()?.ok()
}
