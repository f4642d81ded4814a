//! What is measured: a load on a place that takes events, until all of it has come to its end.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use super::destination::Destination;
use super::load::{self, Course, Load, Ran};
use super::machine::{Probe, Used};
use super::request::{Requests, TYPE_FOR_SINK, TYPE_WITHOUT_TAKER, Tag, tag};
use super::server::Gateway;
use super::sink::{Arrived, Sink};
use crate::cli::exit::{self, Failure};
use crate::core::secret::Secret;
use crate::env::{Clock as _, Entropy as _, RealEntropy};

/// Milliseconds between two looks at what has arrived.
const LOOK_MS: u64 = 10;

/// Milliseconds without an arrival after which the rest is given up.
const QUIET_MS_MAX: u64 = 10_000;

/// What happens to the events that are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// Events are published that no endpoint takes: each is answered when it is durable
    Accept,
    /// Webhooks come in as Stripe signs them: each is verified, deduplicated, and answered when it is durable
    Inbound,
    /// Events are published, delivered to one endpoint over HTTP, and settled
    Cycle,
    /// The same with several endpoints that take each event
    FanOut,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Accept, Self::Inbound, Self::Cycle, Self::FanOut];

    /// Those that publish events.
    pub const PUBLISHING: [Self; 3] = [Self::Accept, Self::Cycle, Self::FanOut];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Inbound => "inbound",
            Self::Cycle => "cycle",
            Self::FanOut => "fan-out",
        }
    }

    /// Endpoints that take each event, where a fan-out has `many`.
    pub fn endpoints(self, many: usize) -> usize {
        match self {
            Self::Accept | Self::Inbound => 0,
            Self::Cycle => 1,
            Self::FanOut => many,
        }
    }
}

/// How a scenario is played.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The load that is measured.
    pub load: Load,
    /// How long the same load runs before it, and is not counted.
    pub warm_up: Duration,
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Endpoints of a fan-out.
    pub endpoints: usize,
}

/// A place that takes events.
pub struct Site {
    scenario: Scenario,
    target: Destination,
    /// What webhooks are signed with.
    secret: Option<Secret>,
    /// Where deliveries arrive, and how many of each event.
    sink: Option<(Sink, u8)>,
    /// The gateway, if it is our own.
    gateway: Option<Gateway>,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// What was played.
    pub scenario: Scenario,
    /// Endpoints that take each event.
    pub endpoints: usize,
    /// The requests.
    pub ran: Ran,
    /// The deliveries, where they arrive here.
    pub delivered: Option<Delivered>,
    /// What the gateway used, if it is our own.
    pub cost: Option<Cost>,
    /// Why deliveries were not waited for to the end.
    pub failure: Option<Failure>,
}

/// Deliveries.
#[derive(Debug, Clone, Copy)]
pub struct Delivered {
    /// As many as must arrive.
    pub expected: u64,
    /// Those that did.
    pub arrived: Arrived,
}

impl Delivered {
    /// Those that did not arrive.
    pub fn lost(&self) -> u64 {
        self.expected.saturating_sub(self.arrived.count)
    }
}

/// What a gateway used.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// While the load was on.
    pub used: Used,
    /// Memory at the end.
    pub rss_bytes: Option<u64>,
}

impl Outcome {
    /// Events per second: accepted, and delivered to all their endpoints where that is measured.
    pub fn events_per_s(&self) -> f64 {
        self.deliveries_per_s().map_or_else(|| self.ran.per_s(), |per_s| per_s / self.endpoints as f64)
    }

    /// Deliveries that arrived, per second of the window or, where that is longer, of the time until the last of them came.
    /// How long lost ones were waited for has no part in it.
    pub fn deliveries_per_s(&self) -> Option<f64> {
        let Arrived { count, last_us, .. } = self.delivered?.arrived;
        Some(load::per_s(count, self.ran.from_us, last_us.max(self.ran.until_us)))
    }

    /// Every event was accepted, and every delivery arrived.
    pub fn is_clean(&self) -> bool {
        self.ran.is_clean() && self.delivered.is_none_or(|delivered| delivered.lost() == 0) && self.failure.is_none()
    }
}

impl Site {
    /// A gateway of our own: `program` on an empty data directory in `dir`.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn own(
        scenario: Scenario,
        endpoints: usize,
        program: &Path,
        dir: &Path,
        course: &Course,
    ) -> Result<Self, Failure> {
        let endpoints = scenario.endpoints(endpoints);
        let sink = match endpoints {
            0 => None,
            _ => Some(listen((Ipv4Addr::LOCALHOST, 0).into(), course).await?),
        };
        let gateway = Gateway::start(program, dir, sink.as_ref().map(|sink| sink.address), endpoints)?;
        let (target, secret) = match scenario {
            Scenario::Inbound => (gateway.inbound().0, Some(gateway.inbound().1.clone())),
            _ => (gateway.publish(), None),
        };
        let sink = sink.map(|sink| (sink, endpoints as u8));
        Ok(Self { scenario, target, secret, sink, gateway: Some(gateway) })
    }

    /// A gateway elsewhere. Where its endpoints point at `sink` there are as many as the scenario has.
    ///
    /// # Errors
    /// When the sink's address can't be listened on.
    pub async fn elsewhere(
        scenario: Scenario,
        endpoints: usize,
        target: Destination,
        secret: Option<Secret>,
        sink: Option<SocketAddr>,
        course: &Course,
    ) -> Result<Self, Failure> {
        let endpoints = scenario.endpoints(endpoints);
        let sink = match sink {
            Some(address) if endpoints > 0 => Some((listen(address, course).await?, endpoints as u8)),
            _ => None,
        };
        Ok(Self { scenario, target, secret, sink, gateway: None })
    }

    /// Warms the gateway up, then measures.
    ///
    /// # Errors
    /// When it can't be reached, or ends.
    pub async fn measure(&self, plan: &Plan, course: &Course) -> Result<Outcome, Failure> {
        course.bar.set_message(format!("{} (warming up)", self.scenario.name()));
        let warm_up = Plan { load: Load { lasts: plan.warm_up, ..plan.load }, ..*plan };
        self.play(&warm_up, course).await?.failure.map_or(Ok(()), Err)?;
        course.bar.set_message(self.scenario.name());
        let probe = self.gateway.as_ref().map(Gateway::probe);
        let before = probe.as_ref().map(Probe::read).unwrap_or_default();
        let outcome = self.play(plan, course).await?;
        let cost = probe.map(|probe| Cost { used: probe.read().since(&before), rss_bytes: probe.rss_bytes() });
        Ok(Outcome { cost, ..outcome })
    }

    /// Sends a load, and waits until all of it has come to its end.
    async fn play(&self, plan: &Plan, course: &Course) -> Result<Outcome, Failure> {
        let tag = tag(RealEntropy.next_u64());
        let settled_before = match &self.gateway {
            Some(gateway) => gateway.settled().await?,
            None => 0,
        };
        if let Some((sink, each)) = &self.sink {
            sink.expect(tag, *each);
        }
        let ran = load::run(&self.target, self.requests(&tag, plan.body_bytes)?, plan.load, course).await?;
        let endpoints = self.scenario.endpoints(plan.endpoints);
        let mut outcome =
            Outcome { scenario: self.scenario, endpoints, ran, delivered: None, cost: None, failure: None };
        if let Some((sink, each)) = &self.sink {
            let expected = outcome.ran.accepted * u64::from(*each);
            outcome.failure = self.wait_for(sink, expected, settled_before, course).await.err();
            outcome.delivered = Some(Delivered { expected, arrived: sink.arrived() });
        }
        Ok(outcome)
    }

    fn requests(&self, tag: &Tag, bytes: usize) -> Result<Requests, Failure> {
        let publish = |event_type| Ok(Requests::published(&self.target, event_type, tag, bytes));
        match (self.scenario, &self.secret) {
            (Scenario::Accept, _) => publish(TYPE_WITHOUT_TAKER),
            (Scenario::Cycle | Scenario::FanOut, _) => publish(TYPE_FOR_SINK),
            (Scenario::Inbound, Some(secret)) => Ok(Requests::signed(&self.target, secret, tag, bytes)),
            (Scenario::Inbound, None) => Err(Failure::usage("expected --secret, to sign webhooks with")),
        }
    }

    /// Waits until so many deliveries have arrived, and are settled where that can be told; or until none comes any more.
    async fn wait_for(&self, sink: &Sink, expected: u64, before: u64, course: &Course) -> Result<(), Failure> {
        let (mut seen, mut since_ms) = (0, course.clock.mono_ms());
        while !course.interrupt.came() {
            let now = match &self.gateway {
                Some(gateway) => gateway.settled().await?.saturating_sub(before).min(sink.count()),
                None => sink.count(),
            };
            if now >= expected || course.clock.mono_ms() - since_ms > QUIET_MS_MAX {
                break;
            }
            if now > seen {
                (seen, since_ms) = (now, course.clock.mono_ms());
            }
            tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
        }
        Ok(())
    }
}

async fn listen(address: SocketAddr, course: &Course) -> Result<Sink, Failure> {
    let failure = |error| Failure::new(exit::BIND, format_args!("the sink at {address}: {error}"));
    Sink::start(address, course.clock.clone()).await.map_err(failure)
}
