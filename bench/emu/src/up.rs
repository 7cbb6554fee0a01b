//! `flwr-emu up`: makes the link, serves requests, reports, removes everything.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};
use tun_rs::SyncDevice;

use crate::control::{self, Readdress, Request};
use crate::device::End;
use crate::direction::{Direction, Parameters};
use crate::input::{Event, Input};
use crate::profile::{self, Overrides};
use crate::pump::Pump;
use crate::{Error, now_ns, print, profiles, warn};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Name of the link's profile: see `flwr-emu profiles`
    #[arg(long)]
    profile: String,
    /// Profiles to use instead of the built-in ones
    #[arg(long, value_name = "FILE")]
    profiles: Option<PathBuf>,
    #[command(flatten)]
    overrides: Overrides,
    /// Decides which packets are lost
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Names of the two namespaces; without it, they hold the process id
    #[arg(long, value_name = "A,B", value_parser = pair::<String>)]
    namespaces: Option<[String; 2]>,
    /// Addresses of the two sides
    #[arg(long, value_name = "A,B", value_parser = pair::<Ipv4Addr>, default_value = "10.77.0.1,10.77.0.2")]
    addresses: [Ipv4Addr; 2],
    /// Length of the network's prefix
    #[arg(long, value_name = "BITS", default_value_t = 24, value_parser = clap::value_parser!(u8).range(8..=30))]
    prefix_length: u8,
    /// TCP congestion control of both sides, or of side 0 and side 1
    #[arg(long, value_name = "NAME[,NAME]", value_parser = one_or_pair)]
    tcp_congestion: Option<[String; 2]>,
    /// Gets the process id when the link is ready; removed at the end
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Open file descriptor that gets the ready line, too
    #[arg(long, value_name = "FD")]
    ready_fd: Option<u32>,
}

/// Runs the link until a signal comes or stdin closes.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    let mut input = Input::open()?;
    crate::check_abilities()?;
    let profile = profile::named(&profiles(options.profiles.as_deref())?, &options.profile)?
        .with(&options.overrides);
    let (parameters, coalesce_ns) = (profile.parameters()?, profile.coalesce_ns()?);
    let (ends, devices) = ends(options)?;
    let directions = [0, 1].map(|side| Direction::new(parameters.clone(), options.seed, side));
    let pump = Pump::start(devices, directions, coalesce_ns)?;
    let ready = json!({
        "ready": true,
        "namespaces": ends.each_ref().map(|end| end.namespace().name()),
        "addresses": ends.each_ref().map(End::address),
        "profile": profile,
        "queue_bytes_max": parameters.queue_bytes_max,
        "seed": options.seed,
    });
    let _pid_file = options
        .pid_file
        .as_deref()
        .map(PidFile::write)
        .transpose()?;
    announce(&ready, options.ready_fd)?;
    let mut session = Session {
        parameters,
        prefix_length: options.prefix_length,
        ends,
        pump,
        begin_ns: now_ns(),
    };
    session.serve(&mut input)?;
    session.end()
}

/// A link that is running.
struct Session {
    parameters: Parameters,
    prefix_length: u8,
    ends: [End; 2],
    pump: Pump,
    begin_ns: u64,
}

impl Session {
    fn serve(&mut self, input: &mut Input) -> Result<(), Error> {
        loop {
            match input.next(self.pump.ended())? {
                Event::End => return Ok(()),
                Event::Line(line) => {
                    if let Err(error) = self.obey(&line) {
                        warn(&error);
                    }
                }
            }
        }
    }

    /// The error is a sentence about this request; the link goes on.
    fn obey(&mut self, line: &str) -> Result<(), String> {
        match control::parse(line, self.parameters.loss)? {
            Request::Change(directions, change) => self.pump.change(directions, change),
            Request::Statistics => print(&self.statistics(false)),
            Request::Readdress(new) => self.readdress(new).map_err(|error| error.to_string())?,
        }
        Ok(())
    }

    fn readdress(&mut self, new: Readdress) -> Result<(), Error> {
        let side = new.side.index();
        check_peers(
            [new.address, self.ends[1 - side].address()],
            self.prefix_length,
        )?;
        self.ends[side].readdress(new.address)
    }

    fn end(self) -> Result<(), Error> {
        print(&self.statistics(true));
        self.pump.stop()
    }

    /// The counters of the devices vanish with the devices, hence this comes before the end of the pump.
    fn statistics(&self, last: bool) -> Value {
        let dropped = self
            .ends
            .each_ref()
            .map(|end| end.packets_dropped().map_err(|error| warn(&error)).ok());
        let reports = self
            .pump
            .report()
            .map(|[forward, backward]| json!({"forward": forward, "backward": backward}));
        json!({
            "final": last,
            "elapsed_s": (now_ns() - self.begin_ns) as f64 / 1e9,
            "directions": reports,
            "tx_dropped": dropped,
        })
    }
}

/// Removed when it is dropped.
struct PidFile<'a>(&'a Path);

impl<'a> PidFile<'a> {
    fn write(path: &'a Path) -> Result<Self, Error> {
        fs::write(path, format!("{}\n", std::process::id()))?;
        Ok(Self(path))
    }
}

impl Drop for PidFile<'_> {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(self.0) {
            warn(&error);
        }
    }
}

/// Both ends of the link; the handle of a device is as good as the device.
fn ends(options: &Options) -> Result<([End; 2], [SyncDevice; 2]), Error> {
    check_peers(options.addresses, options.prefix_length)?;
    let names = options.namespaces.clone().unwrap_or_else(|| {
        let pid = std::process::id();
        [format!("flwr-emu-{pid}-0"), format!("flwr-emu-{pid}-1")]
    });
    let end =
        |side: usize| End::create(&names[side], options.addresses[side], options.prefix_length);
    let ((end_0, device_0), (end_1, device_1)) = (end(0)?, end(1)?);
    let ends = [end_0, end_1];
    if let Some(algorithms) = &options.tcp_congestion {
        for (end, algorithm) in ends.iter().zip(algorithms) {
            end.namespace().choose_congestion_control(algorithm)?;
        }
    }
    Ok((ends, [device_0, device_1]))
}

/// Two addresses between which a packet needs no route.
fn check_peers(addresses: [Ipv4Addr; 2], prefix_length: u8) -> Result<(), Error> {
    let [first, second] = addresses.map(Ipv4Addr::to_bits);
    let different = first ^ second;
    if different == 0 || different.leading_zeros() < u32::from(prefix_length) {
        return Err(Error::Addresses(addresses[0], addresses[1], prefix_length));
    }
    Ok(())
}

fn announce(ready: &Value, descriptor: Option<u32>) -> Result<(), Error> {
    if let Some(descriptor) = descriptor {
        let mut file = OpenOptions::new()
            .write(true)
            .open(format!("/proc/self/fd/{descriptor}"))?;
        writeln!(file, "{ready}")?;
    }
    print(ready);
    Ok(())
}

fn pair<T: std::str::FromStr>(text: &str) -> Result<[T; 2], String> {
    let (first, second) = text
        .split_once(',')
        .ok_or("give two, with a comma between them")?;
    let parse = |text: &str| text.parse().map_err(|_| format!("{text:?} is not valid"));
    Ok([parse(first)?, parse(second)?])
}

fn one_or_pair(text: &str) -> Result<[String; 2], String> {
    if text.contains(',') {
        pair(text)
    } else {
        Ok([text.to_owned(), text.to_owned()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_are_two_of_one_network() {
        let check = |addresses, prefix_length| {
            check_peers(pair(addresses).expect("two addresses"), prefix_length).is_ok()
        };
        assert!(check("10.77.0.1,10.77.0.2", 24));
        assert!(check("10.77.0.1,10.77.1.2", 16));
        assert!(!check("10.77.0.1,10.77.1.2", 24));
        assert!(!check("10.77.0.1,10.77.0.1", 24));
    }
}
