//! Certificates and the TLS configuration of both ends: who may join, and under which name. It knows nothing of what
//! the connections carry.
//!
//! From a secret, every node derives the same certification authority (its Ed25519 key is an HKDF output, the
//! cluster's name in the context) and signs a leaf for itself at each start. In TLS 1.3 a server shows its
//! certificate before the client has proved anything, so the leaf does not name the node: it carries a keyed hash of
//! the node's id, which only holders of the secret can compute. From files, the leaf carries the id itself, as a DNS
//! name or as the URI `spillgate:<id>`, beside the DNS name `spillgate` that every dialer asks for.

use std::path::Path;
use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use ring::hkdf;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use x509_parser::extensions::GeneralName;

use super::Credentials;
use super::error::ClusterError;
use super::secret::{ClusterSecret, SecretKey, hex};
use crate::private_file::complain_if_public;

/// The version of everything spoken on a connection; another one is refused in the handshake.
const ALPN: &[u8] = ALPN_SHOWN.as_bytes();
pub(super) const ALPN_SHOWN: &str = "spillgate/1";
/// The name every leaf carries, so that dialers need not know whom they will meet.
pub(super) const SERVER_NAME: &str = "spillgate";
const URI_PREFIX: &str = "spillgate:";

/// Both ends' configuration and the means to check a peer's name.
pub(super) struct Tls {
    pub(super) server: Arc<QuicServerConfig>,
    pub(super) client: Arc<QuicClientConfig>,
    pub(super) names: Names,
    /// The same in each run of this node and secret from strangers: a restarted node can end its former connections.
    pub(super) reset_seed: [u8; 32],
}

/// How a node's id is found in its certificate.
pub(super) enum Names {
    /// As a keyed hash, under any accepted secret.
    Hidden(ClusterSecret),
    /// As it is.
    Plain,
}

struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: RootCertStore,
}

impl Tls {
    /// # Errors
    /// The files cannot be used, or do not name this node.
    pub(super) fn new(credentials: &Credentials, cluster: &str, node: &str) -> Result<Self, ClusterError> {
        let (identity, names, reset_seed) = match credentials {
            Credentials::Secret(secret) => {
                let identity = Identity::from_secret(secret, cluster, node).map_err(tls_error)?;
                (identity, Names::Hidden(secret.clone()), secret.signing().derive("stateless-reset", node))
            }
            Credentials::Files { ca, cert, key } => {
                let identity = Identity::from_files(ca, cert, key)?;
                if !Names::Plain.covers(&identity.chain[0], node) {
                    let reason = format!("the certificate names neither DNS:{node} nor URI:{URI_PREFIX}{node}");
                    return Err(credentials_error(cert, reason));
                }
                let seed = reset_seed_of_key(identity.key.secret_der());
                (identity, Names::Plain, seed)
            }
        };
        let (server, client) = configurations(identity).map_err(tls_error)?;
        Ok(Self { server: Arc::new(server), client: Arc::new(client), names, reset_seed })
    }
}

impl Names {
    /// Whether the certificate, already verified by its chain, is of this node.
    pub(super) fn covers(&self, leaf: &CertificateDer<'_>, node: &str) -> bool {
        match self {
            Self::Hidden(secret) => secret.accepted().any(|key| names_dns(leaf, &hidden_name(key, node))),
            Self::Plain => names_dns(leaf, node) || names_uri(leaf, &format!("{URI_PREFIX}{node}")),
        }
    }
}

impl Identity {
    fn from_secret(secret: &ClusterSecret, cluster: &str, node: &str) -> Result<Self, rcgen::Error> {
        let mut roots = RootCertStore::empty();
        for key in secret.accepted() {
            let (params, key) = authority(key, cluster)?;
            let root = params.self_signed(&key)?;
            roots.add(root.der().clone()).map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
        }
        let (params, key) = authority(secret.signing(), cluster)?;
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
        let leaf = leaf_params(&hidden_name(secret.signing(), node))?.signed_by(&key, &issuer)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        Ok(Self { chain: vec![leaf.der().clone()], key: key.into(), roots })
    }

    fn from_files(ca: &Path, cert: &Path, key: &Path) -> Result<Self, ClusterError> {
        let mut roots = RootCertStore::empty();
        for root in certificates(ca)? {
            roots.add(root).map_err(|error| credentials_error(ca, error))?;
        }
        let chain = certificates(cert)?;
        complain_if_public(key, "this node's private key");
        let key = PrivateKeyDer::from_pem_file(key).map_err(|error| credentials_error(key, error))?;
        Ok(Self { chain, key, roots })
    }
}

/// The certification authority that a secret and a cluster's name amount to.
fn authority(key: &SecretKey, cluster: &str) -> Result<(CertificateParams, KeyPair), rcgen::Error> {
    // PKCS #8 version 1 of an Ed25519 private key (RFC 8410, 7): this header, then the seed
    let mut pkcs8 = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20".to_vec();
    pkcs8.extend(key.derive("certification-authority", cluster));
    let key = KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8), &rcgen::PKCS_ED25519)?;
    let mut params = certificate_params();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    Ok((params, key))
}

fn leaf_params(name: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut params = certificate_params();
    params.subject_alt_names = vec![SanType::DnsName(SERVER_NAME.try_into()?), SanType::DnsName(name.try_into()?)];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

/// Of authority and leaf alike: the same subject everywhere, and valid whatever a jumping clock says.
fn certificate_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(1975, 1, 1);
    params.not_after = rcgen::date_time_ymd(4096, 1, 1);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, SERVER_NAME);
    params
}

fn configurations(identity: Identity) -> Result<(QuicServerConfig, QuicClientConfig), String> {
    let Identity { chain, key, roots } = identity;
    let (provider, roots) = (Arc::new(rustls::crypto::ring::default_provider()), Arc::new(roots));
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
        .clear_root_hint_subjects()
        .build()
        .map_err(|error| error.to_string())?;
    let mut server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), key.clone_key())
        .map_err(|error| error.to_string())?;
    server.alpn_protocols = vec![ALPN.to_vec()];
    // every connection proves itself anew: handshakes are rare, and a resumed one would outlive a retired secret
    server.send_tls13_tickets = 0;
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|error| error.to_string())?;
    client.alpn_protocols = vec![ALPN.to_vec()];
    client.resumption = rustls::client::Resumption::disabled();
    client.enable_sni = false;
    Ok((
        QuicServerConfig::try_from(server).map_err(|error| error.to_string())?,
        QuicClientConfig::try_from(client).map_err(|error| error.to_string())?,
    ))
}

/// The node's id as its leaf carries it: one DNS label that tells strangers nothing.
fn hidden_name(key: &SecretKey, node: &str) -> String {
    format!("{}.{SERVER_NAME}", hex(&key.derive("node-name", node)[..16]))
}

fn reset_seed_of_key(key: &[u8]) -> [u8; 32] {
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, b"spillgate stateless-reset").extract(key);
    let mut seed = [0; 32];
    prk.expand(&[], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut seed))
        .expect("32 bytes are the output length of HKDF-SHA256");
    seed
}

fn names_dns(leaf: &CertificateDer<'_>, name: &str) -> bool {
    any_name(leaf, |found| matches!(found, GeneralName::DNSName(dns) if *dns == name))
}

fn names_uri(leaf: &CertificateDer<'_>, name: &str) -> bool {
    any_name(leaf, |found| matches!(found, GeneralName::URI(uri) if *uri == name))
}

fn any_name(leaf: &CertificateDer<'_>, is: impl Fn(&GeneralName<'_>) -> bool) -> bool {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(leaf) else { return false };
    matches!(certificate.subject_alternative_name(), Ok(Some(names)) if names.value.general_names.iter().any(is))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ClusterError> {
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| credentials_error(path, error))?.collect();
    match found {
        Ok(found) if found.is_empty() => Err(credentials_error(path, "it holds no PEM certificate")),
        Ok(found) => Ok(found),
        Err(error) => Err(credentials_error(path, error)),
    }
}

fn credentials_error(path: &Path, reason: impl ToString) -> ClusterError {
    ClusterError::Credentials { path: path.into(), reason: reason.to_string() }
}

fn tls_error(reason: impl ToString) -> ClusterError {
    ClusterError::Tls { reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> ClusterSecret {
        ClusterSecret::from_text(text, "test").unwrap()
    }

    #[test]
    fn the_authority_follows_from_secret_and_cluster_name() {
        let public = |text, cluster| {
            let (_, key) = authority(secret(text).signing(), cluster).unwrap();
            key.public_key_raw().to_vec()
        };
        let one = public("0123456789abcdef", "prod");
        assert_eq!(one, public("0123456789abcdef", "prod"));
        assert_ne!(one, public("0123456789abcdef", "test"));
        assert_ne!(one, public("fedcba9876543210", "prod"));
    }

    #[test]
    fn a_leaf_names_its_node_to_holders_of_the_secret_only() {
        let (old, new) = ("old-old-old-old-old", "new-new-new-new-new");
        let leaf = Identity::from_secret(&secret(old), "prod", "node-with.dots_1").unwrap().chain.remove(0);
        let names = Names::Hidden(secret(&format!("{new}\n{old}")));
        assert!(names.covers(&leaf, "node-with.dots_1"));
        assert!(!names.covers(&leaf, "node-with.dots_2"));
        assert!(!Names::Hidden(secret(new)).covers(&leaf, "node-with.dots_1"));
        let shown = leaf.as_ref().windows(4).any(|bytes| bytes == b"dots" || bytes == b"prod");
        assert!(!shown, "the leaf tells the node's id or the cluster's name");
    }

    #[test]
    fn a_plain_leaf_names_its_node_by_dns_or_uri_and_no_other() {
        let (params, ca_key) = authority(secret("0123456789abcdef").signing(), "files").unwrap();
        let issuer = Issuer::new(params, ca_key);
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let mut params = leaf_params("by-dns").unwrap();
        params.subject_alt_names.push(SanType::URI("spillgate:by_uri".try_into().unwrap()));
        let leaf = params.signed_by(&key, &issuer).unwrap();
        for (node, covered) in [("by-dns", true), ("by_uri", true), ("by", false), ("spillgate:by_uri", false)] {
            assert_eq!(Names::Plain.covers(leaf.der(), node), covered, "{node}");
        }
        assert!(!Names::Plain.covers(&CertificateDer::from(vec![0x30, 0x80, 1, 2]), "by-dns"));
    }

    #[test]
    fn files_are_read_checked_and_blamed_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let write = |name: &str, text: String| std::fs::write(path(name), text).unwrap();
        let (params, ca_key) = authority(secret("0123456789abcdef").signing(), "files").unwrap();
        write("ca.pem", params.self_signed(&ca_key).unwrap().pem());
        let issuer = Issuer::new(params, ca_key);
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        write("cert.pem", leaf_params("node-a").unwrap().signed_by(&key, &issuer).unwrap().pem());
        write("key.pem", key.serialize_pem());
        write("junk.pem", "junk".into());
        let files =
            |ca: &str, cert: &str, key: &str| Credentials::Files { ca: path(ca), cert: path(cert), key: path(key) };
        Tls::new(&files("ca.pem", "cert.pem", "key.pem"), "files", "node-a").unwrap();
        for (credentials, node, blamed) in [
            (files("ca.pem", "cert.pem", "key.pem"), "node-b", "cert.pem"),
            (files("none.pem", "cert.pem", "key.pem"), "node-a", "none.pem"),
            (files("ca.pem", "junk.pem", "key.pem"), "node-a", "junk.pem"),
            (files("ca.pem", "cert.pem", "junk.pem"), "node-a", "junk.pem"),
        ] {
            let error = Tls::new(&credentials, "files", node).err().unwrap().to_string();
            assert!(error.contains(blamed), "{error}");
        }
    }
}
