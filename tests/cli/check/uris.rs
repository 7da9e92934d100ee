//! Connection strings as other clients write them, and TLS: what works, and the errors if it does
//! not.

use std::path::PathBuf;

use bson::{doc, rawdoc};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::cli::{Cli, Output};
use crate::support::server::{Server, ServerOptions, free_port};

/// Text that no output may hold: passwords, whole and in part.
const SECRETS: [&str; 3] = ["hunter2", "pass&word", "pass%26word"];

fn file(name: &str) -> String {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/mongo-tls").join(name).to_str().unwrap().to_owned()
}

/// A dry run, which begins as a backup does.
async fn look(uri: &str) -> Output {
    let output = Cli::new().env("MONGO_URI_ATLAS", uri).run(&["backup", "--dry-run", "--allow-empty"]).await;
    let shown = output.stderr.replace("tlsCertificateKeyFilePassword", "");
    for secret in SECRETS {
        assert!(!shown.contains(secret) && !output.stdout.contains(secret), "{secret}: {output:?}");
    }
    output
}

async fn works(uri: &str) -> String {
    let output = look(uri).await;
    assert_eq!(output.code, Some(0), "{uri}: {output:?}");
    output.stderr
}

async fn fails(uri: &str, code: i32, told: &str, hint: &str) {
    let output = look(uri).await;
    assert_eq!(output.code, Some(code), "{uri}: {output:?}");
    let (error, hinted) = output.stderr.split_once("hint: ").unwrap_or((&output.stderr, ""));
    assert!(error.contains(told) && hinted.contains(hint), "{uri}: expected {told:?} and {hint:?}: {output:?}");
}

#[tokio::test]
async fn what_other_clients_write_stops_nothing_and_is_said() {
    let server = Server::standalone().await;
    let host = server.host();
    let options = "compressors=disabled&gssapiServiceName=mongodb&uuidRepresentation=standard&timeoutMS=9000&3t.uriVersion=3&useNewUrlParser=true";
    let uri = format!("mongodb://@{host}/?directConnection=True&{options}&authMechanism=DEFAULT");
    let said = works(&uri).await;
    for name in ["compressors", "gssapiServiceName", "uuidRepresentation", "timeoutMS", "3t.", "useNewUrlParser", "name is empty"]
    {
        assert_eq!(said.matches(name).count(), 1, "{name} is said once: {said}");
    }
    let checked = Cli::new().env("MONGO_URI_LOCAL", &uri).json(&["check"]).await;
    let lines = checked["lines"].as_array().unwrap().iter();
    let notes: Vec<&str> = lines.filter(|l| l["subject"] == "target URI").map(|l| l["message"].as_str().unwrap()).collect();
    assert_eq!(notes.len(), 7, "{checked}");

    let with = |options: &str| format!("mongodb://user:hunter2@{host}/?{options}");
    fails(&with("retryWrite=true"), 2, "the option retryWrite is not known", "retryWrites was probably meant").await;
    fails(&with("proxyHost=p"), 2, "the option proxyHost is not supported", "tunnel").await;
    fails(&with("connectTimeoutMS=soon"), 2, "Invalid Atlas URI format", "connectTimeoutMS").await;
    fails(&with("authMechanism=GSSAPI"), 2, "Invalid Atlas URI format", "Kerberos").await;
    fails(&format!("mongodb://u:hunter2?x=1@{host}/"), 2, "Invalid Atlas URI format", "%3F").await;
    fails(&format!("mongodb://{host},127.0.0.1:1/?directConnection=true"), 2, "cannot be used: ", "").await;

    // Names that need DNS. Without a network there is no answer; with one, the names do not exist.
    fails("mongodb+srv://user:hunter2@cluster0.invalid/", 1, "DNS", "MONGO_URI_ATLAS").await;
    fails("mongodb+srv://user:hunter2@cluster0.invalid:27017/", 2, "Invalid Atlas URI format", "takes no port").await;
    fails("mongodb+srv://a.invalid,b.invalid/", 2, "Invalid Atlas URI format", "one host").await;

    // Errors name faults of the string itself, and also faults of the network.
    fails("mongodb://u:hunter2@h:hunter2/", 2, "the port of a host", "%3A").await;
    fails("u:hunter2@h", 2, "it has no scheme", "mongodb://").await;
    fails("mongodb+srv://u:hunter2@h.example.net:27017/", 2, "mongodb+srv takes no port", "mongodb://").await;
    let soon = "serverSelectionTimeoutMS=400";
    fails(&format!("mongodb://127.0.0.1:1/?{soon}"), 1, "does not answer", "nothing listens there").await;
    fails(&format!("mongodb://no-such-host.invalid/?{soon}"), 1, "does not answer", "cannot be resolved").await;

    // A replica set of another name, or none.
    fails(&format!("mongodb://{host}/?{soon}&replicaSet=rs7"), 1, "belongs to no replica set", "replicaSet").await;
    fails(
        &format!("mongodb://{host}/?{soon}&replicaSet=rs7&directConnection=true"),
        1,
        "belongs to no replica set",
        "replicaSet",
    )
    .await;

    // A server that aborts TLS, as Atlas does for unknown addresses.
    let alert = server_that_answers(&[0x15, 3, 3, 0, 2, 2, 80]).await;
    let tls = "tls=true&tlsAllowInvalidCertificates=true";
    fails(&format!("mongodb://127.0.0.1:{alert}/?{soon}&{tls}"), 1, "does not answer", "IP access list").await;

    // TLS with a server that has none.
    let tls = "serverSelectionTimeoutMS=400&tls=true&tlsAllowInvalidCertificates=true";
    fails(&format!("mongodb://{host}/?{tls}"), 1, "does not answer", &format!("{host} does not speak TLS")).await;
}

#[tokio::test]
async fn tls_works_as_it_is_asked_for_and_its_faults_are_named() {
    let server = Server::start(ServerOptions {
        extra_args: ["--tlsMode", "preferTLS", "--tlsCertificateKeyFile", &file("server.pem"), "--tlsCAFile", &file("ca.pem")]
            .map(str::to_owned)
            .to_vec(),
        ..ServerOptions::default()
    })
    .await;
    let port = server.port();
    let at = |host: &str, options: &str| {
        format!("mongodb://{host}:{port}/?directConnection=true&serverSelectionTimeoutMS=1500&tls=true&{options}")
    };
    let ca = format!("tlsCAFile={}", file("ca.pem"));
    let with = |key: &str| format!("{ca}&tlsCertificateKeyFile={}", file(key));
    let password = "tlsCertificateKeyFilePassword=pass%26word";

    // 1. Keys, plain and encrypted. An unneeded password does no harm.
    works(&at("localhost", &with("client.pem"))).await;
    works(&at("localhost", &format!("{}&{password}", with("client.pem")))).await;
    works(&at("localhost", &format!("{}&{password}", with("client-encrypted.pem")))).await;
    works(&at("localhost", &format!("{}&{password}", with("client-encrypted-before.pem")))).await;
    let wrong = "tlsCertificateKeyFilePassword=hunter2";
    let encrypted = with("client-encrypted.pem");
    fails(&at("localhost", &format!("{encrypted}&{wrong}")), 2, "cannot be decrypted", "tlsCertificateKeyFilePassword").await;
    fails(&at("localhost", &encrypted), 2, "its key is encrypted", "tlsCertificateKeyFilePassword").await;
    let long_ago = with("client-encrypted-long-ago.pem");
    fails(&at("localhost", &format!("{long_ago}&{password}")), 2, "client-encrypted-long-ago.pem", "openssl pkcs8").await;
    fails(&at("localhost", &ca), 1, "does not answer", "tlsCertificateKeyFile").await;

    // 2. Files that do not exist, or hold something else.
    fails(&at("localhost", "tlsCAFile=/nowhere/ca.pem"), 2, "/nowhere/ca.pem: it cannot be read", "tlsCAFile").await;
    fails(&at("localhost", &format!("tlsCAFile={}", file("make"))), 2, "it holds no certificate", "tlsCAFile").await;
    let missing = format!("{ca}&tlsCertificateKeyFile=key.pem");
    fails(&at("localhost", &missing), 2, "key.pem: it cannot be read", "working directory").await;
    fails(&at("localhost", &with("ca.pem")), 2, "it holds no private key", "one PEM file").await;
    fails(&at("localhost", &with("make")), 2, "make: it holds no certificate", "one PEM file").await;

    // 3. Names and CAs.
    let key = with("client.pem");
    fails(&at("127.0.0.1", &key), 1, "does not answer", "tlsAllowInvalidHostnames=true").await;
    works(&at("127.0.0.1", &format!("{key}&tlsAllowInvalidHostnames=true"))).await;
    let other = key.replace("/ca.pem", "/other-ca.pem");
    fails(&at("localhost", &other), 1, "does not answer", "tlsCAFile").await;
    fails(&at("127.0.0.1", &format!("{other}&tlsAllowInvalidHostnames=true")), 1, "is not trusted", "tlsCAFile").await;

    // 4. The same with flags of MongoDB's tools, under their names and those of the shell.
    server.client().await.database("d").collection("c").insert_one(doc! { "_id": 1 }).await.unwrap();
    let (here, key_file) = (port.to_string(), file("client-encrypted.pem"));
    let flags = async |host: &str, flags: &[&str]| -> Output {
        let at = ["dump", "--host", host, "--port", &here, "--serverSelectionTimeout", "2", "--out", "d"];
        let output = Cli::new().run(&[&at[..], flags].concat()).await;
        assert!(SECRETS.iter().all(|secret| !format!("{output:?}").contains(secret)), "{output:?}");
        output
    };
    let (ca_file, client) = (file("ca.pem"), file("client.pem"));
    let encrypted = ["--ssl", "--sslCAFile", &ca_file, "--sslPEMKeyFile", &key_file, "--sslPEMKeyPassword", "pass&word"];
    let of_shell = ["--tls", "--tlsCAFile", &ca_file, "--tlsCertificateKeyFile", &client];
    let any_name = [&of_shell[..], &["--tlsAllowInvalidHostnames"]].concat();
    let any_key = [&["--ssl", "--sslPEMKeyFile", &client][..], &["--sslAllowInvalidCertificates"]].concat();
    let insecure = ["--tls", "--tlsCertificateKeyFile", &client, "--tlsInsecure"];
    for (host, given) in [
        ("localhost", &encrypted[..]),
        ("localhost", &of_shell),
        ("127.0.0.1", &any_name),
        ("127.0.0.1", &any_key),
        ("127.0.0.1", &insecure),
    ] {
        let output = flags(host, given).await;
        assert_eq!(output.code, Some(0), "{given:?}: {output:?}");
    }
    for (host, given, code, told) in [
        ("localhost", &encrypted[..5], 2, "its key is encrypted"),
        ("localhost", &["--ssl"], 1, "tlsCAFile"),
        ("localhost", &["--ssl", "--sslCAFile", &ca_file], 1, "tlsCertificateKeyFile"),
        ("127.0.0.1", &of_shell, 1, "tlsAllowInvalidHostnames"),
        ("localhost", &["--ssl", "--sslPEMKeyFile", &client], 1, "tlsCAFile"),
    ] {
        let output = flags(host, given).await;
        assert!(output.code == Some(code) && output.stderr.contains(told), "{given:?}: {output:?}");
    }

    // 5. No TLS with a server that requires it.
    server.admin(doc! { "setParameter": 1, "tlsMode": "requireTLS" }).await.unwrap();
    let plain = format!("mongodb://localhost:{port}/?serverSelectionTimeoutMS=400");
    fails(&plain, 1, "does not answer", &format!("localhost:{port} speaks TLS: add tls=true")).await;
}

/// Answers everything with these bytes, and closes.
async fn server_that_answers(bytes: &'static [u8]) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut asked = [0; 4096];
                let _client_may_go = stream.read(&mut asked).await;
                let _client_may_go = stream.write_all(bytes).await;
            });
        }
    });
    port
}

/// Answers as a member of a replica set whose member names cannot be resolved.
async fn member_of_a_hidden_set() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut header = [0; 16];
                while stream.read_exact(&mut header).await.is_ok() {
                    let number = |at: usize| i32::from_le_bytes(header[at..at + 4].try_into().unwrap());
                    // Anything but a MongoDB message is a TLS handshake.
                    let length = usize::try_from(number(0)).unwrap_or_default();
                    if !(16..10_000).contains(&length) || stream.read_exact(&mut vec![0; length - 16]).await.is_err() {
                        return;
                    }
                    let hello = rawdoc! {
                        "ok": 1, "helloOk": true, "isWritablePrimary": true, "ismaster": true, "setName": "rs0", "setVersion": 1,
                        "hosts": ["mongo-0.hidden.invalid:27017", "mongo-1.hidden.invalid:27017"], "me": "mongo-0.hidden.invalid:27017",
                        "primary": "mongo-0.hidden.invalid:27017", "minWireVersion": 0, "maxWireVersion": 17,
                        "maxBsonObjectSize": 16_777_216, "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 100_000,
                    };
                    // The first request is OP_QUERY, then OP_MSG.
                    let (code, fields) = if number(12) == 2004 {
                        (1, vec![0; 16].into_iter().chain([1, 0, 0, 0]).collect())
                    } else {
                        (2013, vec![0; 5])
                    };
                    let mut fields: Vec<u8> = fields;
                    fields.extend_from_slice(hello.as_bytes());
                    let head = [16 + fields.len() as i32, 1, number(4), code];
                    let reply: Vec<u8> = head.into_iter().flat_map(i32::to_le_bytes).chain(fields).collect();
                    if stream.write_all(&reply).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_whose_members_have_names_of_their_own_is_told_from_one_that_is_down() {
    let port = member_of_a_hidden_set().await;
    let uri = format!("mongodb://127.0.0.1:{port}/?serverSelectionTimeoutMS=600&replicaSet=rs0");
    fails(&uri, 1, "mongo-0.hidden.invalid:27017", "directConnection=true").await;
    fails(&uri.replace("rs0", "rs1"), 1, "belongs to the replica set \"rs0\", but the URI asks for \"rs1\"", "replicaSet").await;
    let nobody = format!("mongodb://127.0.0.1:{}/?serverSelectionTimeoutMS=200", free_port());
    fails(&nobody, 1, "does not answer", "check that it runs").await;
}
