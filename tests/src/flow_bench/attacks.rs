//! What flows cost that somebody chose to do harm, beside as many chosen at random.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use dataplane::clock::CycleClock;
use dataplane::flow::{Action, FlowKey, FlowState, KeyFields, KeyedHash, Output, Refused, Writer};

use super::engine::{BATCH, Engine, fields, key};

/// Flows that meet in few buckets.
const COLLIDING: u32 = 100_000;
/// Bits of the known hash that are the same for all of them.
const SAME_BITS: u64 = 0xff;
/// Flows that differ in a bit of the source address (32), of the destination address (16) and of a port.
const SHAPES: u32 = 32 * 16 * PORTS;
/// Ports between each pair of addresses.
const PORTS: u32 = 16;

/// What an attack comes to.
#[derive(Debug)]
pub(super) struct Attack {
    pub(super) name: &'static str,
    pub(super) flows: u32,
    /// A packet of as many flows chosen at random.
    pub(super) random_ns: f64,
    /// A packet of the chosen flows.
    pub(super) chosen_ns: f64,
    /// The same if the attacker knew the secret words: what the attack would do to a hash without any. `None` where a hash plays no part.
    pub(super) known_ns: Option<f64>,
}

/// Measures all attacks.
pub(super) fn attacks(clock: CycleClock) -> Result<Vec<Attack>> {
    Ok(vec![collisions(clock)?, shapes(clock)?])
}

/// The hash that the attacker knows.
fn known() -> KeyedHash {
    KeyedHash::with_secrets(std::array::from_fn(|word| 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(word as u64 + 1)))
}

/// Flows whose hashes have the low bits in common, which choose the bucket, under a hash that the attacker knows.
fn collisions(clock: CycleClock) -> Result<Attack> {
    let hash = known();
    let numbers = (0..).filter(|number| hash.of(&key(*number)) & SAME_BITS == 0);
    let chosen: Vec<u32> = numbers.take(COLLIDING as usize).collect();
    let of = move |number: u32| key(chosen.get(number as usize).copied().unwrap_or(0));
    let narrow = |_, key: FlowKey| key;
    Ok(Attack {
        name: "hash collisions",
        flows: COLLIDING,
        random_ns: cost(clock, COLLIDING, KeyedHash::random()?, narrow, key)?,
        chosen_ns: cost(clock, COLLIDING, KeyedHash::random()?, narrow, of.clone())?,
        known_ns: Some(cost(clock, COLLIDING, hash, narrow, of)?),
    })
}

/// Flows each of which differs from what is allowed in another bit of each of three fields: a table that has a mask for each such
/// combination (tuple space search) gets as many masks and tries them in turn. Here a key has two forms, whatever the flows.
fn shapes(clock: CycleClock) -> Result<Attack> {
    let chosen = |number: u32| {
        let pair = number / PORTS;
        shape(1 << (pair % 32), 1 << (pair / 32), 1 << (number % PORTS))
    };
    let random = |number: u32| {
        let mixed = (number / PORTS).wrapping_mul(0x9e37_79b1);
        let [_, _, high, low] = (number % PORTS).wrapping_mul(0x9e37_79b1).to_be_bytes();
        shape(mixed, mixed.rotate_left(16), u16::from_be_bytes([high, low]))
    };
    // Every other pair of addresses has one flow for all ports, so that both forms of a key are looked for.
    let mixed = |number: u32, key: FlowKey| if (number / PORTS).is_multiple_of(2) { key.wide() } else { key };
    Ok(Attack {
        name: "tuple space",
        flows: SHAPES,
        random_ns: cost(clock, SHAPES, KeyedHash::random()?, mixed, random)?,
        chosen_ns: cost(clock, SHAPES, KeyedHash::random()?, mixed, chosen)?,
        known_ns: None,
    })
}

/// A flow whose addresses and destination port differ from what is allowed by these bits.
fn shape(source: u32, destination: u32, port: u16) -> FlowKey {
    FlowKey::from(&KeyFields {
        addresses: Some((
            Ipv4Addr::from(0x0a01_0203 ^ source).into(),
            Ipv4Addr::from(0x0b01_0203 ^ destination).into(),
        )),
        destination_port: 80 ^ port,
        ..fields()
    })
}

/// Nanoseconds of a packet of one of these flows, each of which lies in the table under the form of its key that `form` chooses.
fn cost(
    clock: CycleClock,
    flows: u32,
    hash: KeyedHash,
    form: impl Fn(u32, FlowKey) -> FlowKey,
    key: impl Fn(u32) -> FlowKey + Send + 'static,
) -> Result<f64> {
    let (mut writer, mut readers) = Writer::with_hash(flows * 2, 1, hash)?;
    for number in 0..flows {
        let key = form(number, key(number));
        match writer.insert(&key, &Action::to(Output::Port(1)), FlowState::Active, 0) {
            Ok(_) | Err(Refused::Exists(_)) => {}
            Err(refused) => return Err(refused).context("the table of an attack"),
        }
    }
    let mut engine = Engine::new(readers.pop().context("a table with one reader has none")?, flows, key);
    let cost = engine.cost(clock, BATCH, true);
    ensure!(engine.lost == 0, "{} look-ups of {flows} flows found nothing", engine.lost);
    Ok(cost)
}
