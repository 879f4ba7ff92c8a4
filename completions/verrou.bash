# bash completion for verrou(1)

# Sets `command` and `words_after` (how many plain words followed it), and ends where a program begins.
_verrou_parse()
{
    local i word skip=
    command='' words_after=0 in_program=
    for ((i = 1; i < COMP_CWORD; ++i)); do
        word=${COMP_WORDS[i]}
        if [[ $skip ]]; then
            skip=
        elif [[ $word == '--' && $command == run && $words_after -ge 1 ]]; then
            in_program=$((i + 1))
            return
        elif [[ $word == -?* ]]; then
            case $word in
            --store | --config | --ttl | --wait | --attempts | --retry-delay | --conflict-exit-code | --on-lost)
                skip=1
                ;;
            esac
        elif [[ ! $command ]]; then
            command=$word
        else
            words_after=$((words_after + 1))
            if [[ $command == run && $words_after -eq 2 ]]; then
                in_program=$i
                return
            fi
        fi
    done
}

_verrou()
{
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
    local command words_after in_program
    local commands='run acquire release extend status force-release list init schema doctor version help'
    local options='--store --config --json --help --version'

    COMPREPLY=()
    _verrou_parse

    if [[ $in_program ]]; then
        if declare -F _command_offset >/dev/null; then
            _command_offset "$in_program"
        elif ((COMP_CWORD == in_program)); then
            mapfile -t COMPREPLY < <(compgen -c -- "$current")
        else
            mapfile -t COMPREPLY < <(compgen -f -- "$current")
        fi
        return
    fi

    case $previous in
    --config)
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
        return
        ;;
    --on-lost)
        mapfile -t COMPREPLY < <(compgen -W 'term kill warn' -- "$current")
        return
        ;;
    --ttl)
        mapfile -t COMPREPLY < <(compgen -W 'none' -- "$current")
        return
        ;;
    --store | --wait | --attempts | --retry-delay | --conflict-exit-code)
        return
        ;;
    esac

    case $command in
    run)
        options+=' --ttl --wait --no-wait --attempts --retry-delay --conflict-exit-code --on-lost'
        ;;
    acquire)
        options+=' --ttl --wait --no-wait --attempts --retry-delay'
        ;;
    esac

    if [[ $current == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current")
    elif [[ ! $command ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$current")
    elif [[ $command == schema && $words_after -eq 0 ]]; then
        mapfile -t COMPREPLY < <(compgen -W 'print apply' -- "$current")
    elif [[ $command == help && $words_after -eq 0 ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$current")
    elif [[ $command == run && $words_after -eq 1 ]]; then
        mapfile -t COMPREPLY < <(compgen -c -- "$current")
    fi
}

complete -F _verrou verrou
