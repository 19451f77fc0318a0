"""`kubesvc`: the group of commands. Each is imported only when it is called, so that help and completion are quick."""

from __future__ import annotations

import importlib
import logging
import os
import sys

import click

from kubesvc import __version__

# command -> (module:function, one line of help)
COMMANDS = {
    "up": ("kubesvc.cli.up:up", "Start a box: a cluster for Services on this machine."),
    "down": ("kubesvc.cli.down:down", "Stop a box and leave nothing of it behind."),
    "status": ("kubesvc.cli.status:status", "Show a box's processes, nodes and Services."),
    "doctor": (
        "kubesvc.cli.doctor:doctor",
        "Check that claims and Services agree: no address or port leaked or doubled.",
    ),
    "backup": ("kubesvc.cli.backup:backup", "Copy a box's objects into a file."),
    "restore": ("kubesvc.cli.restore:restore", "Replace a stopped box's objects with a backup."),
    "kubeconfig": ("kubesvc.cli.kubeconfig:kubeconfig", "Print the path of a box's kubeconfig."),
    "proxy": ("kubesvc.cli.proxy:proxy", "Be a node's proxy in any Kubernetes cluster, in place of kube-proxy."),
    "dns": ("kubesvc.cli.dns:dns", "Be the DNS of any Kubernetes cluster, in place of CoreDNS."),
    "loadbalancer": (
        "kubesvc.cli.loadbalancer:loadbalancer",
        "Be the controller of Services of type LoadBalancer, in any Kubernetes cluster.",
    ),
    "image": ("kubesvc.cli.image:image", "Load, pull, list and remove a box's images."),
    "node": ("kubesvc.cli.node:node", "Add nodes to a running box, and remove them."),
    "apply": ("kubesvc.cli.kubectl:apply", "Make objects be as a manifest says."),
    "get": ("kubesvc.cli.kubectl:get", "List objects."),
    "delete": ("kubesvc.cli.kubectl:delete", "Delete objects."),
    "logs": ("kubesvc.cli.kubectl:logs", "Print the log of a container."),
    "exec": ("kubesvc.cli.kubectl:exec_", "Run COMMAND in a container."),
    "demo": ("kubesvc.cli.demo:demo", "Show what a Service does, on three nodes, with real traffic."),
}


class LazyGroup(click.Group):
    """A group that imports a command when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        from kubesvc.box.importing import quickly

        module, _, function = COMMANDS[cmd_name][0].partition(":")
        with quickly():
            command: click.Command = getattr(importlib.import_module(module), function)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_text) for name, (_, help_text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="kubesvc")
def cli() -> None:
    """Kubernetes Services as a system of its own.

    One address, one name, even load and failover for pods that come and go, with the Kubernetes API and the kernel's
    own data plane. Start with `kubesvc up`, then use kubectl as you always do.
    """


def main() -> None:
    """The program: known errors become one line and exit status 1, never a traceback."""
    code = _run()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        code = 141
    logging.shutdown()
    os._exit(code)  # nobody misses what the interpreter would take apart now, for up to 0.15 s


def _run() -> int:
    """Runs the command; its exit status."""
    try:
        code = cli(standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        return 130
    except BrokenPipeError:
        return 141
    except OSError as error:
        click.echo(f"Error: {error}", err=True)
        return 1
    return code if isinstance(code, int) else 0  # click gives an Exit back as its code
