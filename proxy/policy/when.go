package policy

import (
	"errors"
	"fmt"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/vm"
)

// facts are what an expression may speak of.
type facts struct {
	Listener  string   `expr:"listener"`
	Client    string   `expr:"client"`  // address
	Server    string   `expr:"server"`  // address
	Host      string   `expr:"host"`    // name of the server; empty: it was given by address
	Port      int      `expr:"port"`    // of the server
	User      string   `expr:"user"`    // FTP user; empty: nobody has said so
	Account   string   `expr:"account"` // of the proxy; empty: none
	Groups    []string `expr:"groups"`
	Verb      string   `expr:"verb"`
	Sub       string   `expr:"sub"` // of SITE
	Class     string   `expr:"class"`
	Path      string   `expr:"path"`      // empty: none
	Direction string   `expr:"direction"` // download, upload; empty: nothing moves
	Size      int64    `expr:"size"`      // as told before the transfer; -1: not told. It is not to be relied on: larger_than is.
	Offset    int64    `expr:"offset"`
	ClientTLS bool     `expr:"client_tls"` // all is protected
	ServerTLS bool     `expr:"server_tls"`
	Weekday   int      `expr:"weekday"` // 0 is Sunday
	Hour      int      `expr:"hour"`
	Minute    int      `expr:"minute"`
}

// expression is a rule's when.
type expression struct {
	program *vm.Program
	path    bool // it speaks of the path
}

// maxNodes bounds an expression. All that is allowed in one takes time and memory in proportion to its facts, once for each node.
const maxNodes = 500

// The memory of one evaluation, in expr's units, which are about one value each. Nothing that passes the checks needs as much.
const whenMemory = 10_000

var pureBuiltins = []string{"len", "lower", "upper", "trim", "trimPrefix", "trimSuffix", "hasPrefix", "hasSuffix", "indexOf", "int", "abs", "min", "max"}

// compileWhen reads an expression. What could take a long time or much memory with what a client sends is not in the language: no
// loops, ranges, powers and repetitions, and no regular expression that is not written out in the rule.
func compileWhen(text string) (*expression, error) {
	c := &whenChecker{}
	options := []expr.Option{expr.Env(facts{}), expr.AsBool(), expr.MaxNodes(maxNodes), expr.DisableAllBuiltins(), expr.Patch(c)}
	for _, b := range pureBuiltins {
		options = append(options, expr.EnableBuiltin(b))
	}
	program, err := expr.Compile(text, options...)
	switch {
	case err != nil:
		first, _, _ := strings.Cut(err.Error(), "\n") // what follows is a picture of the place
		return nil, errors.New("not an expression that is true or false: " + first)
	case c.bad != "":
		return nil, fmt.Errorf("%s is not allowed in rules: write comparisons, in, and, or, not, contains, startsWith, endsWith, matches with a "+
			"pattern in quotes, and the functions %s", c.bad, strings.Join(pureBuiltins, ", "))
	}
	return &expression{program, c.path}, nil
}

// whenChecker looks at every node of an expression, before it is optimised. It changes none.
type whenChecker struct {
	bad  string
	path bool
}

var whenOperators = map[string]bool{
	"==": true, "!=": true, "<": true, ">": true, "<=": true, ">=": true, "and": true, "&&": true, "or": true, "||": true, "in": true,
	"contains": true, "startsWith": true, "endsWith": true, "+": true, "-": true, "*": true, "/": true, "%": true,
}

// Visit is for expr, which calls it for each node.
func (c *whenChecker) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.IdentifierNode:
		c.path = c.path || n.Value == "path"
		if n.Value == "$env" {
			c.bad = "$env"
		}
	case *ast.BinaryNode:
		_, literal := n.Right.(*ast.StringNode)
		if !whenOperators[n.Operator] && !(n.Operator == "matches" && literal) {
			c.bad = n.Operator
		}
	case *ast.MemberNode:
		if _, field := n.Property.(*ast.IntegerNode); !field {
			c.bad = "a member that is not a number"
		}
	case *ast.BuiltinNode, *ast.UnaryNode, *ast.ConditionalNode, *ast.ArrayNode,
		*ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.StringNode, *ast.ConstantNode:
	default:
		c.bad = strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%T", n), "*ast."), "Node")
	}
}
