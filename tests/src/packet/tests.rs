//! Packets against bytes that were computed by hand, and there and back.

#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

/// Bytes from hexadecimal, blanks ignored.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

#[test]
fn checksums_by_their_definitions() {
    // The example of RFC 1071, section 3, and a header whose checksum is b861.
    assert_eq!(internet(&[&hex("0001 f203 f4f5 f6f7")]), !0xddf2);
    assert_eq!(internet(&[&hex("4500 0073 0000 4000 4011 0000 c0a8 0001 c0a8 00c7")]), 0xb861);
    // The check value of CRC-32C, and RFC 3720, B.4.
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
}

#[test]
fn known_bytes() {
    let check = |packet: Packet, bytes: &str| {
        let bytes = hex(bytes);
        assert_eq!(packet.build(), bytes, "{packet:?}");
        assert_eq!(
            if packet.ethernet.is_some() { Packet::parse(&bytes) } else { Packet::parse_ip(&bytes) }.unwrap(),
            packet
        );
    };
    check(
        udp().from("10.0.0.1:1").to("10.0.0.2:2"),
        "020000000002 020000000001 0800  4500 001c 0000 0000 4011 66cf 0a00 0001 0a00 0002  0001 0002 0008 ebd8",
    );
    check(
        tcp().from("10.0.0.1:4000").to("10.96.0.1:80").syn().without_ethernet(),
        "4500 0028 0000 0000 4006 666f 0a00 0001 0a60 0001  0fa0 0050 00000000 00000000 5002 ffff 8b91 0000",
    );
    // fd00 + 1 + fd00 + 2 + 8 + 17 and 7 + 9 + 8 carried round are fa35: its complement.
    check(
        udp().from("[fd00::1]:7").to("[fd00::2]:9").ttl(3).without_ethernet(),
        "60000000 0008 11 03 fd000000000000000000000000000001 fd000000000000000000000000000002 0007 0009 0008 05ca",
    );
    check(
        echo_request(0x1234, 1).from("10.0.0.1").to("10.0.0.2").without_ethernet(),
        "4500 001c 0000 0000 4001 66df 0a00 0001 0a00 0002  08 00 e5ca 1234 0001",
    );
    check(
        sctp().from("10.0.0.1:1").to("10.0.0.2:2").without_checksum().without_ethernet(),
        "4500 0020 0000 0000 4084 6658 0a00 0001 0a00 0002  0001 0002 00000000 00000000",
    );
}

#[test]
fn there_and_back() {
    let (v4, v6) = (("10.0.0.1:4000", "10.96.0.1:80"), ("[fd00::1]:4000", "[fd00:96::1]:80"));
    for (from, to) in [v4, v6] {
        let on = |packet: Packet| packet.from(from).to(to);
        let segment = on(tcp()).syn().ack().numbers(1, 2).mss(1460).window(7).payload(b"odd");
        let mut all = vec![
            segment.clone(),
            segment.clone().turned(),
            on(udp()).payload(b"data"),
            on(sctp()).tag(9).payload(&hex("01 00 0014 00000001 00000400 0001 0001 00000001")),
            on(echo_request(1, 2)).payload(b"ping"),
            on(echo_reply(1, 2)),
            on(port_unreachable(&segment)),
            on(too_big(1400, &on(udp()).payload(&[7; 100]))).showing(8),
            on(time_exceeded(&on(sctp()).tag(1))).showing(3),
            on(other(47, b"anything")).tos(0x2e),
            on(tcp()).ttl(1).id(if from == v4.0 { 77 } else { 0 }).without_ethernet(),
        ];
        all.extend(on(udp()).payload(&[5; 100]).id(4711).fragments(40));
        if from == v4.0 {
            all.push(on(tcp()).options(&[7, 7, 4, 0, 1, 1, 1, 0]).dont_fragment());
            all.push(on(udp()).without_checksum());
        } else {
            all.push(on(tcp()).extension(0, &[0; 6]).extension(60, &[1; 14]).tos(3));
            all.extend(on(tcp()).extension(0, &[0; 6]).payload(&[1; 50]).id(1).fragments(32));
        }
        for packet in all {
            let bytes = packet.build();
            let read =
                if packet.ethernet.is_some() { Packet::parse(&bytes) } else { Packet::parse_ip(&bytes) };
            assert_eq!(read.unwrap(), packet);
        }
    }
}

#[test]
fn fragments_make_the_whole() {
    let whole = udp().from("10.0.0.1:1").to("10.0.0.2:2").payload(&(0..200).collect::<Vec<u8>>());
    let parts = whole.fragments(64);
    assert_eq!(parts.len(), 4);
    assert_eq!(parts[0].ports(), Some((1, 2)));
    assert_eq!(parts[1].ports(), None);
    let bodies: Vec<u8> = parts.iter().flat_map(|part| part.build()[34..].to_vec()).collect();
    assert_eq!(bodies, whole.build()[34..]);
}

#[test]
fn neighbours() {
    let target = "fd00::1:2:3".parse().unwrap();
    let asks = neighbour_solicitation(target).from("fd00::9");
    assert_eq!(asks.destination.to_string(), "ff02::1:ff02:3");
    assert_eq!(Packet::parse(&asks.build()).unwrap(), asks);
    let answers = neighbour_advertisement(target, RECEIVER).from("fd00::1:2:3").to("fd00::9");
    assert_eq!(Packet::parse(&answers.build()).unwrap(), answers);
    let asks = Arp::request([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    assert_eq!(Arp::parse(&asks.build()).unwrap(), asks);
    let answers = asks.reply(RECEIVER);
    assert_eq!((answers.sender, answers.target), (asks.target, asks.sender));
    assert_eq!(Arp::parse(&answers.build()).unwrap(), answers);
}

#[test]
fn every_wrong_bit_is_found() {
    let inner = udp().from("10.0.0.2:2").to("10.0.0.1:1").payload(b"whole");
    for packet in [
        tcp().from("10.0.0.1:1").to("10.0.0.2:2").payload(b"12"),
        udp().from("[fd00::1]:1").to("[fd00::2]:2").payload(b"12"),
        sctp().from("10.0.0.1:1").to("10.0.0.2:2").payload(&[1; 8]),
        echo_request(1, 1).from("fd00::1").to("fd00::2"),
        port_unreachable(&inner).from("10.0.0.1").to("10.0.0.2"),
    ] {
        let right = packet.build();
        for at in 14..right.len() {
            let mut wrong = right.clone();
            wrong[at] ^= 0x10;
            let read = Packet::parse(&wrong);
            // IPv6 has no checksum of its own: traffic class, flow label, next header, hop limit.
            let unprotected = !packet.is_v4() && [14, 15, 16, 17, 20, 21].contains(&at);
            assert!(read.is_err() || (unprotected && read.unwrap() != packet), "byte {at} of {packet:?}");
        }
        assert!(Packet::parse(&right[..right.len() - 1]).is_err());
        assert!(Packet::parse(&[&right[..], &[0]].concat()).is_err());
    }
}

#[test]
fn errors_name_the_layer() {
    let check = |mut bytes: Vec<u8>, at: usize, expected: &str| {
        bytes[at] ^= 1;
        assert_eq!(format!("{:#}", Packet::parse(&bytes).unwrap_err()), expected);
    };
    let segment = tcp().from("10.0.0.1:4000").to("10.96.0.1:80").syn();
    check(segment.build(), 14 + 8, "IPv4: header: checksum 666f is wrong by feff");
    check(segment.build(), 14 + 20 + 17, "IPv4: TCP: checksum 8b90 is wrong by 0001");
    let error = port_unreachable(&segment).from("10.96.0.1").to("10.0.0.1");
    assert!(Packet::parse(&error.build()).is_ok());
    // A wrong checksum inside, under a right one outside.
    let Body::IcmpError(mut wrong) = error.body.clone() else { unreachable!() };
    wrong.inner = Box::new(other(6, &{
        let mut bytes = segment.build()[34..].to_vec();
        bytes[4] ^= 1;
        bytes
    }));
    wrong.inner.ethernet = None;
    let wrong = Packet { body: Body::IcmpError(wrong), ..error };
    let said = format!("{:#}", Packet::parse(&wrong.build()).unwrap_err());
    assert!(said.starts_with("IPv4: ICMP: the packet inside: IPv4: TCP: checksum"), "{said}");
}
