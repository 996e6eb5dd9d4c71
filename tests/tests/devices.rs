//! Packet programs at devices: attached, replaced by the next agent, removed with the device or when it is no longer ours.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use pagurus_agent_core::devices::{Device, DeviceKind};
use pagurus_agent_datapath::Config;
use pagurus_agent_datapath::devices::{Devices, Early, Synced, passing};
use pagurus_tests::dataplane;
use pagurus_tests::netns::{Sandbox, ip, isolated, run};

fn config(sandbox: &Sandbox) -> Result<Config> {
    // What loading does first.
    fs::create_dir_all(sandbox.bpffs.join("pagurus/links"))?;
    Ok(dataplane::config(&sandbox.cgroup, &sandbox.bpffs))
}

fn agent(config: &Config, early: Early) -> Result<Devices> {
    Ok(Devices::new(config, passing::programs()?, early)?)
}

/// A pair, of which only this end gets programs.
fn pair(name: &str) -> Result<()> {
    ip(&["link", "add", name, "type", "veth", "peer", "name", &format!("{name}-p")])?;
    for end in [name, &format!("{name}-p")] {
        ip(&["link", "set", "dev", end, "up"])?;
    }
    Ok(())
}

fn device(name: &str, kind: DeviceKind) -> Result<Device> {
    let ifindex = nix::net::if_::if_nametoindex(name).with_context(|| format!("find {name}"))?;
    Ok(Device { ifindex, name: name.to_owned(), kind })
}

/// What was done, as created, replaced, removed.
fn done(synced: &Synced) -> Result<(usize, usize, usize)> {
    ensure!(synced.problems.is_empty(), "{:?}", synced.problems);
    Ok((synced.created, synced.replaced, synced.removed))
}

fn pins(sandbox: &Sandbox) -> Result<BTreeSet<String>> {
    let entries = fs::read_dir(sandbox.bpffs.join("pagurus/links"))?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Ids of the links at a device, as another program sees them.
fn links(name: &str) -> Result<BTreeSet<String>> {
    let shown = run("ip", &["-d", "link", "show", "dev", name])?;
    Ok(shown
        .split("prog/xdp id ")
        .skip(1)
        .filter_map(|rest| rest.split(' ').next().map(str::to_owned))
        .collect())
}

#[test]
fn programs_come_and_go_with_their_devices() {
    isolated("devices::programs_come_and_go_with_their_devices", |sandbox| {
        let config = config(sandbox)?;
        let mut agent = agent(&config, Early::Off)?;
        pair("uplink")?;
        pair("pod")?;
        let (up, pod) = (device("uplink", DeviceKind::Uplink)?, device("pod", DeviceKind::Pod)?);
        ensure!(done(&agent.attach(&pod))? == (2, 0, 0), "a pod's device at once");
        ensure!(done(&agent.sync(&[up.clone(), pod.clone()]))? == (2, 0, 0), "the other one");
        ensure!(done(&agent.sync(&[up.clone(), pod.clone()]))? == (0, 0, 0), "nothing is done twice");
        let names = |list: &[(&str, &Device)]| -> BTreeSet<String> {
            list.iter().map(|(program, device)| format!("{program}@{}", device.ifindex)).collect()
        };
        let both = [("from_pod", &pod), ("to_pod", &pod), ("from_outside", &up), ("to_outside", &up)];
        ensure!(pins(sandbox)? == names(&both), "{:?}", pins(sandbox)?);
        // Another name for the same device: other programs, and the old ones go.
        let now_pod = Device { kind: DeviceKind::Pod, ..up.clone() };
        ensure!(done(&agent.sync(&[now_pod.clone(), pod.clone()]))? == (2, 0, 2), "of another kind");
        // The device goes with its programs; a new one of that name has another number.
        ip(&["link", "del", "pod"])?;
        ensure!(done(&agent.sync(std::slice::from_ref(&now_pod)))? == (0, 0, 2), "the pod has gone");
        let gone = agent.sync(&[now_pod, pod]);
        ensure!(done(&gone)? == (0, 0, 0), "a device that went a moment ago is no error");
        ensure!(done(&agent.sync(&[]))? == (0, 0, 2), "nothing is ours any more");
        ensure!(pins(sandbox)?.is_empty());
        Ok(())
    });
}

#[test]
fn the_next_agent_replaces_programs_in_place() {
    isolated("devices::the_next_agent_replaces_programs_in_place", |sandbox| {
        let config = config(sandbox)?;
        pair("uplink")?;
        let up = [device("uplink", DeviceKind::Uplink)?];
        let mut first = agent(&config, Early::Native)?;
        ensure!(done(&first.sync(&up))? == (3, 0, 0), "tcx twice and XDP");
        let before = links("uplink")?;
        ensure!(before.len() == 1, "{before:?}");
        drop(first);
        let mut second = agent(&config, Early::Native)?;
        ensure!(done(&second.sync(&up))? == (0, 3, 0), "no link is made again");
        let after = links("uplink")?;
        ensure!(after.len() == 1 && after != before, "another program in it: {before:?} {after:?}");
        ensure!(done(&second.sync(&up))? == (0, 0, 0), "once");
        // An agent that is told to leave XDP off takes its program away.
        let mut third = agent(&config, Early::Off)?;
        ensure!(done(&third.sync(&up))? == (0, 2, 1), "XDP goes");
        ensure!(links("uplink")?.is_empty());
        Ok(())
    });
}

#[test]
fn a_pin_of_another_device_is_not_taken_for_ours() {
    isolated("devices::a_pin_of_another_device_is_not_taken_for_ours", |sandbox| {
        let config = config(sandbox)?;
        ip(&["link", "add", "one", "index", "77", "type", "veth", "peer", "name", "one-p"])?;
        let mut first = agent(&config, Early::Off)?;
        ensure!(done(&first.sync(&[device("one", DeviceKind::Pod)?]))? == (2, 0, 0));
        // The same number for another device.
        ip(&["link", "del", "one"])?;
        ip(&["link", "add", "two", "index", "77", "type", "veth", "peer", "name", "two-p"])?;
        ensure!(
            done(&first.sync(&[device("two", DeviceKind::Pod)?]))? == (2, 0, 0),
            "attached to the new one"
        );
        // The same number in another namespace, while the old device is still there.
        ip(&["netns", "add", "other"])?;
        ip(&["link", "set", "two", "netns", "other"])?;
        ip(&["link", "add", "three", "index", "77", "type", "veth", "peer", "name", "three-p"])?;
        let mut second = agent(&config, Early::Off)?;
        ensure!(
            done(&second.sync(&[device("three", DeviceKind::Pod)?]))? == (2, 0, 0),
            "not replaced in the other"
        );
        Ok(())
    });
}

#[test]
fn programs_of_others_stay() {
    isolated("devices::programs_of_others_stay", |sandbox| {
        pair("uplink")?;
        let up = [device("uplink", DeviceKind::Uplink)?];
        // Somebody else's programs, pinned elsewhere.
        let other = Config { bpffs: sandbox.bpffs.join("other"), ..config(sandbox)? };
        fs::create_dir_all(other.bpffs.join("pagurus/links"))?;
        let mut theirs = agent(&other, Early::Off)?;
        ensure!(done(&theirs.sync(&up))? == (2, 0, 0));
        let config = config(sandbox)?;
        let mut ours = agent(&config, Early::Off)?;
        ensure!(done(&ours.sync(&up))? == (2, 0, 0), "beside them");
        ensure!(done(&theirs.sync(&up))? == (0, 0, 0), "theirs are as they were");
        ensure!(done(&ours.sync(&[]))? == (0, 0, 2));
        ensure!(done(&theirs.sync(&up))? == (0, 0, 0), "and still are");
        Ok(())
    });
}
