//! The one UDP socket and how QUIC behaves on it: sizes, times, numbers. It knows nothing of peers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::{
    AckFrequencyConfig, ClientConfig, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, ServerConfig,
    TokioRuntime, TransportConfig, VarInt,
};
use ring::hmac;
use socket2::{Domain, Protocol, Socket, Type};

use super::congestion::NewsGoesOn;
use super::error::ClusterError;
use super::tls::Tls;

/// A connection without a word for so long is lost.
const IDLE: Duration = Duration::from_secs(5);
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// Messages under way on one connection, each way.
pub(super) const STREAMS_MAX: u32 = 32;
/// Room for the news of many peers that arrives while the process is not scheduled.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// Packets that may come before one is acknowledged, if none goes back within some 25 ms anyway.
const ACKNOWLEDGE_EVERY: u32 = 15;
/// What one connection may make us hold: unread datagrams, and unread parts of messages.
const DATAGRAM_BUFFER_BYTES: usize = 1 << 20;
const RECEIVE_WINDOW_BYTES: u32 = 4 << 20;
/// Handshakes that wait to be taken up; beyond, strangers are dropped.
const INCOMING_MAX: usize = 256;

/// # Errors
/// The port is taken, or the address is not this machine's; the error names it.
pub(super) fn bind(listen: SocketAddr) -> Result<UdpSocket, ClusterError> {
    let open = || -> io::Result<UdpSocket> {
        let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
        if listen.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
            socket.set_only_v6(false)?;
        }
        // best effort: the system's own limit may be lower, and quinn works with what there is
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
        socket.bind(&listen.into())?;
        Ok(socket.into())
    };
    open().map_err(|source| ClusterError::Bind { address: listen, source })
}

/// An endpoint that both dials and listens on the socket; must be called inside a tokio runtime.
///
/// # Errors
/// The runtime does not take the socket.
pub(super) fn open(socket: UdpSocket, tls: &Tls) -> io::Result<Endpoint> {
    let transport = Arc::new(transport());
    let mut server = ServerConfig::with_crypto(tls.server.clone());
    server.transport_config(transport.clone()).migration(false).max_incoming(INCOMING_MAX);
    let mut client = ClientConfig::new(tls.client.clone());
    client.transport_config(transport);
    // A node that restarts holds the reset key of its former run: a packet for a connection it no longer knows is
    // answered with a reset that the peer believes, and the peer dials anew instead of waiting out the idle time.
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &tls.reset_seed)));
    config.cid_generator(|| Box::new(RandomIds));
    // firewalls, and whoever captures the traffic, know QUIC by the fixed bit, which RFC 9287 allows to be anything
    config.grease_quic_bit(false);
    let mut endpoint = Endpoint::new(config, Some(server), socket, Arc::new(TokioRuntime))?;
    endpoint.set_default_client_config(client);
    Ok(endpoint)
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(STREAMS_MAX))
        .max_idle_timeout(Some(IDLE.try_into().expect("5 s fit a QUIC integer of milliseconds")))
        .keep_alive_interval(Some(KEEP_ALIVE))
        // the first retransmission of a handshake comes after three of these
        .initial_rtt(Duration::from_millis(100))
        .congestion_controller_factory(NewsGoesOn::config())
        .ack_frequency_config(Some(acknowledgements()))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES))
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER_BYTES))
        .datagram_send_buffer_size(DATAGRAM_BUFFER_BYTES);
    transport
}

/// News goes both ways at every tick, and takes QUIC's acknowledgements along. At its own pace QUIC sends one for every other
/// packet, which are as many packets again as long rounds of news have.
fn acknowledgements() -> AckFrequencyConfig {
    let mut acknowledgements = AckFrequencyConfig::default();
    acknowledgements.ack_eliciting_threshold(VarInt::from_u32(ACKNOWLEDGE_EVERY));
    acknowledgements
}

/// Quinn's own ids carry a mark of the process, so that it ignores those of a former run; these do not.
struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&rand::random::<[u8; 8]>())
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Where peers shall reach us: as configured, else the address listened on, else the address this machine would take
/// towards `towards` (a seed), else loopback.
pub(super) fn advertised(configured: Option<SocketAddr>, local: SocketAddr, towards: Option<SocketAddr>) -> SocketAddr {
    if let Some(mut address) = configured {
        if address.port() == 0 {
            address.set_port(local.port());
        }
        return address;
    }
    if !local.ip().is_unspecified() {
        return local;
    }
    let outgoing = towards.and_then(outgoing_ip).or_else(|| outgoing_ip((TEST_NET, 9).into()));
    let ip = outgoing.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let address = SocketAddr::new(ip, local.port());
    tracing::info!(%address, listen = %local, "advertising this address to peers; set cluster.advertise if it is wrong");
    address
}

/// An address of RFC 5737 that nobody has: the route to it is the default route.
const TEST_NET: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Connecting a UDP socket sends nothing; it only chooses a route, and with it the address to send from.
fn outgoing_ip(towards: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if towards.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(towards).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified()).then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_configured_is_advertised_with_the_real_port() {
        assert_eq!(advertised(Some(at("10.0.0.3:1")), at("0.0.0.0:2"), None), at("10.0.0.3:1"));
        assert_eq!(advertised(Some(at("10.0.0.3:0")), at("0.0.0.0:2"), None), at("10.0.0.3:2"));
        assert_eq!(advertised(None, at("127.0.0.1:2"), None), at("127.0.0.1:2"));
    }

    #[test]
    fn an_unspecified_address_becomes_the_one_towards_the_seed() {
        assert_eq!(advertised(None, at("0.0.0.0:2"), Some(at("127.0.0.1:9"))), at("127.0.0.1:2"));
        let default = advertised(None, at("0.0.0.0:2"), None);
        assert!(!default.ip().is_unspecified() && default.port() == 2, "{default}");
    }
}
