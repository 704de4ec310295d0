package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"ftpalg/proxy/accounts"
)

// defaultCost makes a login cost about a tenth of a second of one core, and a guess at a stolen file as much.
const defaultCost = 11

func newPasswd() *cobra.Command {
	var cost int
	c := &cobra.Command{
		Use: "passwd NAME", Short: "Print a line for accounts.file: a name and the hash of its password",
		Long: `Passwd asks for a password, twice, or reads it as a line from standard input where that is no
terminal, and prints the line NAME:HASH for the file that accounts.file names:

  ftpalg passwd alice >> /etc/ftpalg/accounts

The hash is bcrypt's, as htpasswd -B makes it. A running ftpalg takes the change over by itself.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			// What is wrong with the name is said before anybody types.
			if _, err := accounts.Entry(args[0], "x", min(cost, 4)); err != nil {
				return err
			}
			password, err := readPassword(cmd.InOrStdin(), cmd.ErrOrStderr())
			if err != nil {
				return fail(err)
			}
			line, err := accounts.Entry(args[0], password, cost)
			if err != nil {
				return fail(err)
			}
			fmt.Fprintln(cmd.OutOrStdout(), line)
			return nil
		},
	}
	c.Flags().IntVar(&cost, "cost", defaultCost, "`number`, 4 to 15, by which a login takes time: each one more doubles it")
	return c
}

// readPassword reads a password without showing it.
func readPassword(in io.Reader, prompt io.Writer) (string, error) {
	file, ok := in.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		line, err := bufio.NewReader(io.LimitReader(in, 4096)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
		return strings.TrimRight(line, "\r\n"), nil
	}
	var typed [2]string
	for i, text := range []string{"Password: ", "The same again: "} {
		fmt.Fprint(prompt, text)
		b, err := term.ReadPassword(int(file.Fd()))
		fmt.Fprintln(prompt)
		if err != nil {
			return "", err
		}
		typed[i] = string(b)
	}
	if typed[0] != typed[1] {
		return "", errors.New("the passwords differ; nothing is made")
	}
	return typed[0], nil
}
