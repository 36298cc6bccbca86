//! Hosts with addresses and links of their own: network namespaces on a switch, all of them made here
//! and gone when dropped. The machine's own network is not touched.

use std::{net::Ipv4Addr, path::PathBuf, process::Command};

/// Hosts on a switch.
#[derive(Debug)]
pub struct Network {
    prefix: String,
    hosts: Vec<String>,
}

impl Network {
    /// Makes hosts of these names, at most 200, that reach each other; `None` if this machine cannot,
    /// after saying so.
    ///
    /// # Panics
    ///
    /// If something fails half-way.
    pub fn of(hosts: &[&str]) -> Option<Self> {
        remove_left();
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let network = Self {
            prefix: format!("grange-{}-{count}", std::process::id()),
            hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
        };
        if !try_ip(&["netns", "add", &network.switch()]) {
            crate::cannot("network namespaces need root and iproute2");
            return None;
        }
        network.make_switch();
        for index in 0..hosts.len() {
            network.plug_in(index);
        }
        Some(network)
    }

    fn make_switch(&self) {
        let switch = self.switch();
        ip(&["-n", &switch, "link", "add", "bridge", "type", "bridge"]);
        ip(&["-n", &switch, "link", "set", "bridge", "up"]);
    }

    fn plug_in(&self, index: usize) {
        let (switch, port) = (self.switch(), port(index));
        let host = self.name(&self.hosts[index]);
        ip(&["netns", "add", &host]);
        let link = ["link", "add", &port, "type", "veth", "peer", "name", "eth0"];
        ip(&[&["-n", &switch], &link[..], &["netns", &host]].concat());
        ip(&["-n", &switch, "link", "set", &port, "master", "bridge"]);
        ip(&["-n", &switch, "link", "set", &port, "up"]);
        let address = format!("{}/24", self.address(&self.hosts[index]));
        ip(&["-n", &host, "address", "add", &address, "dev", "eth0"]);
        ip(&["-n", &host, "link", "set", "eth0", "up"]);
        ip(&["-n", &host, "link", "set", "lo", "up"]);
    }

    /// The address of a host.
    ///
    /// # Panics
    ///
    /// If there is no such host.
    pub fn address(&self, host: &str) -> Ipv4Addr {
        let number = u8::try_from(1 + self.index(host)).unwrap();
        Ipv4Addr::new(10, 77, 0, number)
    }

    /// Has all links carry packets of at most so many bytes, with the headers of IP; they begin with 1,500.
    ///
    /// # Panics
    ///
    /// If that is more than there can be.
    pub fn carry(&self, packet_bytes: u32) {
        let bytes = packet_bytes.to_string();
        for (index, host) in self.hosts.iter().enumerate() {
            let ends = [
                (self.switch(), port(index)),
                (self.name(host), "eth0".to_owned()),
            ];
            for (namespace, link) in ends {
                ip(&["-n", &namespace, "link", "set", &link, "mtu", &bytes]);
            }
        }
    }

    /// Takes a host's link down.
    pub fn cut(&self, host: &str) {
        ip(&[
            "-n",
            &self.switch(),
            "link",
            "set",
            &port(self.index(host)),
            "down",
        ]);
    }

    /// Brings a host's link up again.
    pub fn mend(&self, host: &str) {
        ip(&[
            "-n",
            &self.switch(),
            "link",
            "set",
            &port(self.index(host)),
            "up",
        ]);
    }

    /// A command that runs `program` on a host.
    pub fn command(&self, host: &str, program: &std::path::Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path(host).display()));
        command.arg("--").arg(program);
        command
    }

    /// The host on which a process runs; `None`: it is gone, or runs elsewhere.
    pub fn host_of(&self, pid: u32) -> Option<&str> {
        let inode = |path: PathBuf| {
            let metadata = std::fs::metadata(path).ok()?;
            Some(std::os::unix::fs::MetadataExt::ino(&metadata))
        };
        let of = inode(PathBuf::from(format!("/proc/{pid}/ns/net")))?;
        let mut hosts = self.hosts.iter();
        let host = hosts.find(|host| inode(self.path(host)) == Some(of));
        host.map(String::as_str)
    }

    fn index(&self, host: &str) -> usize {
        let index = self.hosts.iter().position(|known| known == host);
        index.unwrap_or_else(|| panic!("there is no host `{host}`"))
    }

    fn path(&self, host: &str) -> PathBuf {
        PathBuf::from("/run/netns").join(self.name(host))
    }

    fn name(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }

    fn switch(&self) -> String {
        self.name("switch")
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let hosts = self.hosts.iter().map(|host| self.name(host));
        for namespace in hosts.chain([self.switch()]) {
            // One that was not made cannot be taken away.
            let _gone = try_ip(&["netns", "delete", &namespace]);
        }
    }
}

/// Removes the hosts of test processes that were killed before they could.
fn remove_left() {
    let names = std::fs::read_dir("/run/netns").into_iter().flatten();
    let names = names
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    for name in names.filter(|name| is_left(name, is_alive)) {
        // Another process may be about to remove it, too.
        let _gone = try_ip(&["netns", "delete", &name]);
    }
}

/// Whether a namespace was made here by a process that is gone.
fn is_left(name: &str, is_alive: impl Fn(u32) -> bool) -> bool {
    let of = name.strip_prefix("grange-");
    let maker = of.and_then(|of| of.split_once('-')?.0.parse().ok());
    maker.is_some_and(|maker| !is_alive(maker))
}

fn is_alive(pid: u32) -> bool {
    std::path::Path::new("/proc").join(pid.to_string()).exists()
}

fn port(index: usize) -> String {
    format!("port{index}")
}

#[track_caller]
fn ip(arguments: &[&str]) {
    assert!(try_ip(arguments), "ip {} failed", arguments.join(" "));
}

fn try_ip(arguments: &[&str]) -> bool {
    let output = Command::new("ip").args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_namespaces_of_processes_that_are_gone_are_left_over() {
        let is_alive = |pid| pid == 7;
        assert!(is_left("grange-8-0-client", is_alive));
        assert!(!is_left("grange-7-0-client", is_alive));
        for other in ["grange", "grange-x-0-client", "cni-8-0", "8-0-client"] {
            assert!(!is_left(other, is_alive), "{other}");
        }
    }
}
