#!/usr/bin/env bash
# From a bare Debian or Ubuntu box to env/bin/python with all that the train_*.py scripts need. Minutes are money.
#
#   bash payload/setup.sh        # in a job's folder; GPURUN_GPUS=n: the offer says so many GPUs (default 0: not told)
#   bash payload/setup.sh own    # for a user's own script: own_setup.py makes the environment that it names
#
# Three ways, the cheapest first; what one lacks the next brings:
#   image  the image's own python3 has everything in range (requirements.txt): nothing is downloaded
#   torch  its torch is in range: a fresh environment sees that torch, the rest comes from requirements.lock
#   whole  everything comes from requirements.lock, torch in the build that the driver can serve
# Environments lie in ~/.gpurun/envs, finished ones are used again, half-made ones are made anew. pip's and uv's
# variables (PIP_INDEX_URL, PIP_FIND_LINKS, PIP_CONSTRAINT, UV_*, …) hold.
#
# Exit 0: the environment computes, on the GPU where there is one. 10: this machine is broken, and the last line on
# standard error says how, the same on every machine that fails so. Other: it can't be made; the last line says why.
set -uo pipefail # no -e: it is off in all that stands in a condition; failures are passed on by hand
exec </dev/null

job=$PWD
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
home=${HOME:-~}/.gpurun
oldest=3.11 # what the lock is made for
cloud_init_seconds=300 lock_seconds=1800 check_seconds=300 smi_seconds=120

say() { printf 'setup: %s\n' "$*"; }
quiet() { "$@" >/dev/null 2>&1; }
has() { quiet command -v "$1"; }
last_line() { grep -v '^[[:space:]]*$' "$1" | tail -n 1; }
fail() { printf 'setup: %s\n' "$*" >&2 && exit 1; }
broken() { printf '%s\n' "$*" >&2 && exit 10; }

timed() { # name, command: run it, and say how long it took
    local name=$1 begun=$SECONDS
    shift
    "$@" || return
    say "$name $((SECONDS - begun)) s"
}

# ── the machine ──────────────────────────────────────────────────────────────────────────────────────────────────

wait_for_boot() { # cloud-init may still be installing, or moving package sources about
    has cloud-init || return 0
    quiet timeout --foreground "$cloud_init_seconds" cloud-init status --wait ||
        say "cloud-init: $(cloud-init status 2>&1 | head -n 1)"
}

look_around() {
    local code
    # shellcheck source=/dev/null
    say "$(. /etc/os-release && echo "$PRETTY_NAME"), $(uname -m), $(nproc --all) CPUs, $(free_gb) GB free on disk"
    gpus=0 driver='' smi='nvidia-smi is not there'
    if has nvidia-smi; then
        smi=$(timeout --foreground -k 5 "$smi_seconds" nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>&1)
        code=$?
        case $code in 124 | 137) smi='nvidia-smi hung' ;; esac # a broken driver or GPU: it would bill until it is called hung
        if [ "$code" = 0 ]; then
            gpus=$(grep -c . <<<"$smi")
            driver=$(sed -n '1s/.*, *\([0-9]*\).*/\1/p' <<<"$smi")
            say "$gpus GPU(s): $(head -n 1 <<<"$smi" | sed 's/, */, driver /')"
        fi
    fi
    if [ "$gpus" -lt "${GPURUN_GPUS:-0}" ]; then
        smi=$(head -n 1 <<<"$smi" | sed -E 's/\b[0-9A-Fa-f]{4,}:[0-9A-Fa-f:.]+/…/g')
        [ "$gpus" -gt 0 ] || broken "no GPU: $smi"
        broken "the offer has $GPURUN_GPUS GPUs, nvidia-smi lists $gpus"
    fi
}

free_gb() { df -Pk "$home" | awk 'NR == 2 { printf "%d", $4 / 1048576 }'; }

# ── which way ────────────────────────────────────────────────────────────────────────────────────────────────────

new_enough() { quiet "$1" -c "import sys; sys.exit(sys.version_info < (${oldest/./, }))"; }

choose() { # sets way and python
    local candidate seen=' ' lacks
    way=whole python='' kept=''
    for candidate in python3 /opt/conda/bin/python3 /usr/local/bin/python3 /usr/bin/python3; do
        candidate=$(command -v "$candidate") || continue
        [[ $seen != *" $candidate "* ]] || continue
        seen+="$candidate "
        if ! new_enough "$candidate"; then
            say "$candidate is $("$candidate" --version 2>&1), older than $oldest"
            continue
        fi
        python=${python:-$candidate}
        lacks=$("$candidate" "$here/packages.py" lacks "$here/requirements.txt") && way=image python=$candidate && break
        say "$candidate lacks $(paste -sd ' ' <<<"$lacks")"
        [ "$way" = whole ] || continue
        kept=$("$candidate" "$here/packages.py" torch "$here/requirements.txt") && way=torch python=$candidate
    done
    say "python: ${python:-none from $oldest on}${python:+ ($("$python" --version 2>&1))}, way: $way"
}

next_way() { # torch of the image is no use: leave it
    [ "$way" != whole ] || return
    way=whole
    say "way: whole"
}

# ── what installs ────────────────────────────────────────────────────────────────────────────────────────────────

carry_settings() { # uv reads none of pip's variables
    [ -n "${UV_DEFAULT_INDEX-}${UV_INDEX_URL-}${PIP_INDEX_URL-}" ] && own_index=yes
    export UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-${UV_INDEX_URL:-${PIP_INDEX_URL:-https://pypi.org/simple}}}
    if [ -n "${PIP_EXTRA_INDEX_URL-}" ] && [ -z "${UV_INDEX-}${UV_EXTRA_INDEX_URL-}" ]; then
        export UV_EXTRA_INDEX_URL=$PIP_EXTRA_INDEX_URL UV_INDEX_STRATEGY=${UV_INDEX_STRATEGY:-unsafe-best-match}
    fi
    [ -z "${PIP_FIND_LINKS-}" ] || export UV_FIND_LINKS=${UV_FIND_LINKS:-${PIP_FIND_LINKS// /,}}
    [ -z "${PIP_CONSTRAINT-}" ] || export UV_CONSTRAINT=${UV_CONSTRAINT:-$PIP_CONSTRAINT}
    [ -z "${PIP_CERT-}" ] || export SSL_CERT_FILE=${SSL_CERT_FILE:-$PIP_CERT}
    [ -z "${PIP_TRUSTED_HOST-}" ] || export UV_INSECURE_HOST=${UV_INSECURE_HOST:-$PIP_TRUSTED_HOST}
    case ${PIP_NO_INDEX:-0} in 0 | false) ;; *) own_index=yes && no_index=(--no-index) ;; esac
    # beside the environments: on one file system uv links instead of copying
    export UV_CACHE_DIR=${UV_CACHE_DIR:-$home/cache/uv} UV_NO_PROGRESS=1 PIP_DISABLE_PIP_VERSION_CHECK=1
}

get_installer() { # sets uv, or leaves it empty where pip must do
    local words version
    version=$(sed -n 's/^uv==\([^ ;]*\).*/\1/p' "$here/installer.lock")
    uv=$(command -v uv) && grep -q -e --torch-backend <<<"$("$uv" pip install --help 2>&1)" && return
    uv=$home/bin/uv-$version
    [ ! -x "$uv" ] || return 0
    words=$("${python:-python3}" "$here/packages.py" fetch "$here/installer.lock" "$uv" 2>&1) && return
    say "$words"
    uv=''
    export PIP_INDEX_URL=${PIP_INDEX_URL:-$UV_DEFAULT_INDEX}
    [ -n "$python" ] || fail "no Python from $oldest on is here, and no uv to fetch one: $words"
    quiet "$python" -c 'import ensurepip, venv' || install_venv || fail "$python has no venv module, and $words"
}

install_venv() { # Debian splits it off; unattended upgrades may hold the locks
    local as_root=() package
    has apt-get || return
    [ "$(id -u)" = 0 ] || as_root=(sudo -n)
    quiet "${as_root[@]}" true || return
    package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    say "installing the Debian package $package"
    apt() { quiet "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@"; }
    apt update
    apt install -y --no-install-recommends "$package"
}

new_environment() {
    if [ -z "$uv" ]; then
        "$python" -m venv "$env"
    else
        "$uv" venv -q --python "${python:-3.12}" "$env"
    fi
}

install() { # pip's arguments; on failure sets why
    local words=$env/.words
    if [ -n "$uv" ]; then
        "$uv" pip install -q --python "$env/bin/python" "${no_index[@]}" "$@" 2>"$words" && return
    else
        "$env/bin/python" -m pip install -q "${no_index[@]}" "$@" 2>"$words" && return
    fi
    cat "$words" >&2
    why=$(grep -iE '^ *(error|cause)|×|no space' "$words" | tail -n 1)
    why=$(sed -E 's/^ *//' <<<"${why:-$(last_line "$words")}")
    return 1
}

# ── the three ways ───────────────────────────────────────────────────────────────────────────────────────────────

make_image() { # no link: python finds a virtual environment by the path it is called by
    local name
    mkdir -p "$env/bin" || return
    for name in python python3; do
        printf '#!/bin/bash\nexec %q "$@"\n' "$python" >"$env/bin/$name" && chmod 755 "$env/bin/$name" || return
    done
}

make_torch() {
    new_environment || fail "no environment can be made with $python"
    # Linked by name, and not --system-site-packages: what else the image has was built for its own numpy. uv does not
    # see it there (it would download torch again, were it asked to resolve): --no-deps, since the lock is complete.
    local site
    site=$("$env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))') || return
    "$python" "$here/packages.py" keep "$env/kept" && echo "$env/kept" >"$site/gpurun_kept.pth" || return
    say "keeping torch $kept"
    timed packages install --no-deps -r "$home/rest.lock" || fail "the packages can't be installed: $why"
}

make_whole() {
    new_environment || fail "no environment can be made with ${python:-Python 3.12}"
    timed torch install_torch || fail "torch can't be installed: $why"
    timed packages install --no-deps -r "$home/rest.lock" || fail "the packages can't be installed: $why"
}

# CUDA 13 (torch from 2.11 on, as PyPI has it) needs driver 580, CUDA 12 needs 525. The index of PyTorch has a build
# for each CUDA and for none; PyPI's own is 3 GB of CUDA and serves where that can't be reached.
install_torch() {
    local pinned range backend=()
    pinned=$(grep -m 1 '^torch==' "$here/requirements.lock")
    range=$(grep -m 1 '^torch[<>=]' "$here/requirements.txt")
    if [ "$gpus" != 0 ] && [ -n "$driver" ] && [ "$driver" -lt 525 ]; then broken "driver $driver too old for CUDA 12"; fi
    if [ -z "$own_index" ]; then
        build=cu126
        [ "$gpus" != 0 ] || build=cpu
        [ -n "$uv" ] && backend=(--torch-backend "${UV_TORCH_BACKEND:-auto}")
        [ -n "$uv" ] || backend=(--index-url "https://download.pytorch.org/whl/$build")
        if [ -n "$uv" ] || [ "$gpus" = 0 ] || [ "${driver:-580}" -lt 580 ]; then
            install "${backend[@]}" -c "$home/rest.lock" "$pinned" && return
            grep -qiE 'no (solution|matching)' "$env/.words" && # there, but without that version
                install "${backend[@]}" -c "$home/rest.lock" "$range" && return
        fi
    fi
    if [ "$gpus" != 0 ] && [ "${driver:-580}" -lt 580 ] && [ -z "$own_index" ]; then
        install -c "$home/rest.lock" "$range,<2.11"
    else
        install -c "$home/rest.lock" "$pinned"
    fi
}

# ── does it compute ──────────────────────────────────────────────────────────────────────────────────────────────

check() { # python, argument: what gpu_check.py says, its last word in why
    local words=$home/check.$$ code attempt
    for attempt in 1 2; do
        timeout --foreground -k 10 "$check_seconds" "$1" "$here/gpu_check.py" "$2" 2>"$words"
        code=$?
        why=$(last_line "$words")
        [[ $code.$attempt.$2.$why == "10.1.--driver.CUDA error 802:"* ]] || break # it says: not *yet* initialized
        say "$why; once more in 5 s" && sleep 5
    done
    rm -f "$words"
    case $code in
        0 | 4) return "$code" ;;
        10) broken "$why" ;;
        124 | 137) broken "the GPU check hung" ;;
        *) fail "the check of torch left with $code: $why" ;;
    esac
}

make_environment() {
    local key
    key=$(cat "$here"/{setup.sh,packages.py,requirements.txt,requirements.lock,installer.lock} &&
        echo "$way $python $kept $("${python:-python3}" -VV 2>&1) $gpus $driver")
    env=$home/envs/$way-$(cksum <<<"$key" | cut -d ' ' -f 1)
    if [ -e "$env/.ready" ]; then return; fi
    { rm -rf "$env" && mkdir -p "$home/envs"; } || fail "$home/envs can't be written"
    [ "$way" = image ] || timed installer get_installer
    "make_$way" || fail "the environment can't be made (way: $way)"
    touch "$env/.ready"
}

# ── a user's own script ──────────────────────────────────────────────────────────────────────────────────────────

own_setup() { GPURUN_SETUP_HOME=$home timed environment python3 "$here/own_setup.py" "$@" || exit 1; }

make_own() { # the GPU is checked with its torch, where it has one
    own_setup
    quiet "$job/env/bin/python" -c 'import importlib.util as u, sys; sys.exit(not u.find_spec("torch"))' || return 0
    timed check check "$job/env/bin/python" "$gpus" && return
    say "$why"
    own_setup anew
    timed check check "$job/env/bin/python" "$gpus" || fail "$why"
}

main() {
    local env way python kept uv='' why='' gpus driver smi own_index='' no_index=()
    mkdir -p "$home" || fail "$home can't be made"
    exec 9>"$home/setup.lock"
    flock -w "$lock_seconds" 9 || fail "another setup has been at work for $lock_seconds s"
    timed boot wait_for_boot
    look_around
    [ "$gpus" = 0 ] || check "$(command -v python3 || echo /usr/bin/python3)" --driver
    carry_settings
    if [ "${1-}" = own ] && quiet python3 "$here/own_setup.py" names; then
        make_own
        say "ready in $SECONDS s"
        return
    fi
    grep -vE '^(torch|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==' "$here/requirements.lock" >"$home/rest.lock"
    choose
    while true; do
        timed environment make_environment
        timed check check "$env/bin/python" "$gpus" && break
        say "$why"
        next_way || fail "$why"
    done
    "$env/bin/python" "$here/packages.py" shows "$here/requirements.txt" | sed 's/^/setup: /'
    { ln -sfn "$env" "$job/.env.$$" && mv -Tf "$job/.env.$$" "$job/env"; } || fail "$job/env can't be made"
    [ "${1-}" != own ] || own_setup
    say "ready in $SECONDS s"
}

# A long download says nothing; whoever follows the log sees by the disk that it goes on. `read` sleeps without a
# process of its own, which would be left behind.
pulse() {
    local before=0 now never
    exec {never}<> <(:)
    while ! read -rt 20 -u "$never"; do
        now=$(du -sm "$home" 2>/dev/null | cut -f 1)
        [ "$now" = "$before" ] || say "… ${now} MB in $home"
        before=$now
    done
}

pulse &
pulse=$!
trap 'kill $pulse; wait $pulse 2>/dev/null' EXIT
main "$@"
