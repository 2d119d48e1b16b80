//! Those who do not belong: garbage, clients without a certificate, members who lie about their name.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{HandshakeData, QuicClientConfig};
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::time::timeout;

use super::nodes::{Event, Node, OLD, Setup, until};
use crate::cluster::quic::code;
use crate::cluster::refusal::Refusal;
use crate::cluster::tls::Tls;
use crate::cluster::{ClusterSecret, Credentials, Hello, endpoint};

#[test]
fn garbage_on_the_port_is_harmless() {
    let a = Setup::new("a").start();
    let b = Setup::new("b").seed(&a).start();
    a.meets(&b);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut garbage = vec![0_u8; 1400];
    for round in 0..2000_u32 {
        for (place, byte) in garbage.iter_mut().enumerate() {
            *byte = (round.wrapping_mul(2_654_435_761).wrapping_add(place as u32 * 40_503) >> 13) as u8;
        }
        // now and then what looks like the first packet of a connection: long header, version 1
        if round % 3 == 0 {
            garbage[0] = 0xc0 | (garbage[0] & 0x0f);
            garbage[1..5].copy_from_slice(&[0, 0, 0, 1]);
        }
        let size = (round as usize * 7) % garbage.len();
        socket.send_to(&garbage[..size], a.cluster().local_addr()).unwrap();
    }
    b.send(&a, b"unharmed".to_vec()).unwrap();
    a.sees(&Event::Message(b.id(), b"unharmed".to_vec()));
    let c = Setup::new("c").seed(&a).start();
    a.meets(&c);
    assert_eq!(a.inbox.events_of("b").len(), 1, "{:?}", a.inbox.events());
}

/// Trusts whatever it meets and has nothing to show.
#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// It speaks these versions, the one it likes best first.
fn credulous_client(versions: &[&str]) -> ClientConfig {
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous))
        .with_no_client_auth();
    tls.alpn_protocols = versions.iter().map(|v| v.as_bytes().to_vec()).collect();
    ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
}

#[test]
fn a_client_without_a_certificate_is_closed_and_hears_nothing() {
    let a = Setup::new("a-name-that-is-not-told").start();
    a.runtime().block_on(async {
        let client = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let config = credulous_client(&["spillgate/1"]);
        let connecting = client.connect_with(config, a.cluster().local_addr(), "spillgate").unwrap();
        // its own half of the handshake succeeds: that is how TLS 1.3 is
        let connection = connecting.await.unwrap();
        let leaf = connection.peer_identity().unwrap().downcast::<Vec<CertificateDer<'_>>>().unwrap().remove(0);
        assert!(!leaf.windows(8).any(|bytes| b"a-name-that-is-not-told".windows(8).any(|name| name == bytes)));
        assert!(connection.accept_uni().await.is_err(), "a stream was opened to a stranger");
        let reason = connection.closed().await;
        assert!(matches!(reason, ConnectionError::ConnectionClosed(_)), "{reason}");
    });
    assert!(a.inbox.events().is_empty() && a.cluster().members().is_empty());
}

#[test]
fn a_version_that_has_none_in_common_is_refused_in_the_handshake_and_told_so() {
    let a = Setup::new("a").start();
    a.runtime().block_on(async {
        let client = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        for versions in [&["spillgate/0"][..], &["spillgate/2", "spillgate/3"], &["h3"]] {
            let config = credulous_client(versions);
            let refused = client.connect_with(config, a.cluster().local_addr(), "spillgate").unwrap().await;
            let refusal = Refusal::from(refused.unwrap_err());
            assert!(matches!(refusal, Refusal::Version), "{versions:?}: {refusal}");
            assert!(refusal.to_string().contains("spillgate/1"), "{refusal}");
        }
    });
    assert!(a.cluster().members().is_empty());
}

/// An upgrade to an incompatible version goes by way of one that speaks both.
#[test]
fn a_later_version_that_still_speaks_this_one_is_spoken_to_in_it() {
    let a = Setup::new("a").start();
    a.runtime().block_on(async {
        let client = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let config = credulous_client(&["spillgate/2", "spillgate/1"]);
        let connection = client.connect_with(config, a.cluster().local_addr(), "spillgate").unwrap().await.unwrap();
        let agreed = connection.handshake_data().unwrap().downcast::<HandshakeData>().unwrap().protocol;
        assert_eq!(agreed.as_deref(), Some(&b"spillgate/1"[..]));
    });
}

/// A member, by its certificate, that says the hello it is given.
async fn pretend(to: &Node, certified: &str, hello: &Hello) -> Connection {
    let credentials = Credentials::Secret(ClusterSecret::from_text(OLD, "test").unwrap());
    let tls = Tls::new(&credentials, "test", certified).unwrap();
    let socket = endpoint::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let endpoint = endpoint::open(socket, &tls).unwrap();
    let connection = endpoint.connect(to.cluster().local_addr(), "spillgate").unwrap().await.unwrap();
    let mut stream = connection.open_uni().await.unwrap();
    stream.write_all(&hello.encode()).await.unwrap();
    stream.finish().unwrap();
    connection
}

fn hello(node: &str) -> Hello {
    Hello { peers: 0, cluster: "test".into(), node: node.into(), incarnation: 1, address: ([127, 0, 0, 1], 9).into() }
}

#[test]
fn a_member_that_lies_about_its_name_or_cluster_is_refused() {
    let a = Setup::new("a").start();
    for lie in [hello("victim"), hello("not a name"), Hello { cluster: "other".into(), ..hello("liar") }] {
        let reason = a.runtime().block_on(async {
            let connection = pretend(&a, "liar", &lie).await;
            timeout(Duration::from_secs(10), connection.closed()).await.expect("the liar was let in")
        });
        let ConnectionError::ApplicationClosed(close) = reason else { panic!("{lie:?}: {reason}") };
        assert_eq!(close.error_code, code::REFUSED, "{lie:?}");
    }
    assert!(a.inbox.events().is_empty() && a.cluster().members().is_empty());
}

#[test]
fn a_member_that_talks_nonsense_is_not_up_and_does_no_harm() {
    let a = Setup::new("a").start();
    let connection = a.runtime().block_on(async {
        let connection = pretend(&a, "odd", &hello("odd")).await;
        for tag in 0..=255_u8 {
            let _ = connection.send_datagram(vec![tag; 50].into());
            let _ = connection.send_datagram(vec![tag].into());
            if let Ok(Ok(mut stream)) = timeout(Duration::from_millis(5), connection.open_uni()).await {
                let _ = stream.write_all(&[tag; 5000]).await;
            }
        }
        let _ = connection.send_datagram(Vec::new().into());
        connection
    });
    until("it said goodbye, among the nonsense, and was let go", || connection.close_reason().is_some());
    let b = Setup::new("b").seed(&a).start();
    a.meets(&b);
    assert_eq!(a.inbox.events().len(), 1, "{:?}", a.inbox.events());
}
